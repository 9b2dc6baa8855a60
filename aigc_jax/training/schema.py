"""The keys that training reads, and the keys of a complete config. This module does not
import jax.
"""

import functools

from aigc_jax.core.schema import COMMON, DURATION, NAMES, Key, choice_key
from aigc_jax.data.schema import DATA
from aigc_jax.methods import schema as methods
from aigc_jax.methods.hparams import HPARAMS
from aigc_jax.metrics import schema as metrics
from aigc_jax.models.schema import MODEL

KEYS = (
    Key(
        "best_metric",
        str,
        "Logged metric that selects the best checkpoint, such as valid/loss; '': no best "
        "checkpoint.",
        "",
    ),
    choice_key(
        "best_mode",
        "Which value of best_metric is best.",
        {"min": "the least", "max": "the greatest"},
        "min",
    ),
    Key("init_from", str, "Run directory whose parameters initialize the run.", ""),
    Key(
        "init_match",
        str,
        "Parameters that init_from initializes: a regular expression on paths such as "
        "params/g/Dense_0/kernel.",
        ".*",
    ),
)
_AXIS = "Devices along the mesh axis of {}; -1: all remaining devices."
RUN = (
    Key(
        "run.data_dir",
        str,
        "Directory of data sets; '': $AIGC_DATA_DIR, or else ~/tensorflow_datasets.",
        "",
    ),
    choice_key(
        "run.data_placement",
        "Where the data set is stored during training.",
        {
            "device": "in the memory of each device",
            "host": "on the host; batches are transferred, for data larger than a device's memory",
        },
        "device",
    ),
    Key("run.mesh.trial", int, _AXIS.format("trials"), 1, -1, 2**20),
    Key("run.mesh.data", int, _AXIS.format("the examples of a batch"), -1, -1, 2**20),
    Key("run.mesh.model", int, _AXIS.format("parameters"), 1, -1, 2**20),
    choice_key(
        "run.parallel",
        "How a program is divided over devices.",
        {
            "jit": "XLA partitions one program",
            "pmap": "each device runs the program on its part of the batch (run.mesh.data only)",
        },
        "jit",
    ),
    Key(
        "run.sequence_parallel",
        bool,
        "Transformers: shard activations between layers by positions over run.mesh.model "
        "(Korthikanti et al. 2022).",
        False,
    ),
    Key(
        "run.fsdp",
        bool,
        "Shard parameters and optimiser state over run.mesh.data too, gathered where a step needs "
        "them (Rajbhandari et al. 2020).",
        False,
    ),
    Key("run.log_every", DURATION, "Interval of the rows of training losses.", "100 steps"),
    Key("run.eval_every", DURATION, "Interval of evaluations.", "1000 steps"),
    Key("run.sample_every", DURATION, "Interval of saved samples.", "1000 steps"),
    Key("run.save_every", DURATION, "Interval of checkpoints.", "1000 steps"),
    Key("run.samples", int, "Samples in a file of samples.", 64, 1, 10**4, unit="samples"),
    Key(
        "run.log",
        NAMES,
        "Loggers of the rows and samples, besides rows.jsonl.",
        ("tensorboard",),
        allowed={
            "csv": "metrics.csv, a table of the rows",
            "tensorboard": "events of TensorBoard, with images, text, audio and hyper-parameters",
            "wandb": "Weights & Biases, or files for `wandb sync` where WANDB_MODE=offline",
        },
    ),
    choice_key(
        "run.log_norms",
        "Norms of gradients, updates and parameters in the rows of training.",
        {
            "none": "no",
            "network": "one group for each trained network",
            "module": "one group for each module of a trained network, such as layer_0",
        },
        "none",
    ),
    Key(
        "run.deterministic",
        bool,
        "GPUs: deterministic, slower kernels; CPUs are always deterministic.",
        False,
    ),
)
# {axis: default}
MESH = {
    key.name.removeprefix("run.mesh."): key.default
    for key in RUN
    if key.name.startswith("run.mesh.")
}
# Keys of all configs except hyper-parameters and `model`, in the order of listings.
BASE = (*methods.KEYS[:1], *COMMON, *methods.KEYS[1:], *metrics.KEYS, *KEYS)


@functools.cache
def allowed_keys(method: str, network: str = "") -> dict[str, Key]:  # by dotted name
    """Return {name: key} of all keys that a config of this method and network may
    contain; without `model.*` if the network is unknown, or is "" for a method of
    several networks.
    """
    parts = MODEL.get((method, network), {})
    model = [
        key._replace(name=".".join(filter(None, ("model", part, key.name))))
        for part, keys in parts.items()
        for key in keys
    ]
    own = methods.METHODS[method].keys if method in methods.METHODS else ()
    return {key.name: key for key in (*BASE, *own, *HPARAMS, *model, *DATA, *RUN)}
