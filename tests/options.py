"""The options of the package as data, read from its tables: allowed values of keys,
keys that a value requires, and refused combinations.

A base is a method and its network, as in `models.schema.MODEL`. An axis is a config
key; a key that holds several names has a boolean axis `KEY:NAME` for each name. New
tables and keys of the schemas are tested without a change of this file; a new network
needs an entry of BASES.
"""

import functools
import importlib.util
import tempfile
from pathlib import Path
from typing import NamedTuple

from aigc_jax.core.schema import NAMES
from aigc_jax.data import schema as data_schema
from aigc_jax.training import config as configs
from aigc_jax.training import config_files
from aigc_jax.training.schema import allowed_keys

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
_FOLDER = tempfile.TemporaryDirectory(prefix="aigc_jax_options_")  # removed at exit
FILES = Path(_FOLDER.name)

# A run of two steps.
SHORT = {
    "steps": "2 steps",
    "batch_size": 8,
    "schedule.warmup": "1 step",
    "metrics": (),
    "num_metric_samples": 16,
    "run.mesh.data": 1,
    "run.log_every": "1 step",
    "run.eval_every": "2 steps",
    "run.sample_every": "never",
    "run.save_every": "1 step",
    "run.samples": 4,
    "run.log": (),
}
DIGITS = {"data.name": "digits"}
TEXT = {
    "data.name": "text",
    "data.path": str(FILES / "texts"),
    "data.tokenizer": "bytes",
    "data.vocabulary": 0,
    "data.length": 8,
    "data.split": "80/10/10",
    "best_metric": "valid/loss",
}
TRANSFORMER = {
    "model.layers": 1,
    "model.heads": 2,
    "model.width": 8,
    "model.context": 16,
    "model.hidden": 8,
    "model.kv_heads": 0,
    "model.dropout": 0.0,
}
GAN = DIGITS | {"latent_dim": 4, "critic_steps": 1, "best_metric": "valid/real_logit"}
VAE = DIGITS | {
    "latent_dims": (3,),
    "num_importance_samples": 1,
    "nll_samples": 4,
    "model.activation": "relu",
}

BASES = {
    ("gan", "mlp"): ("gan_digits", GAN | {"model.g.widths": (6,), "model.d.widths": (6, 5)}),
    ("gan", "dcgan"): ("dcgan_digits", GAN | {"model.g.base": 3, "model.g.channels": (3,),
        "model.d.channels": (3, 4), "model.g.kernel": 3, "model.d.kernel": 3}),
    ("gan", "resnet"): ("sngan_hinge_cifar10", GAN | {"model.g.width": 3, "model.g.ups": 1,
        "model.d.width": 3, "model.d.downs": 1, "model.d.flats": 1, "loss": "non_saturating",
        "schedule.name": "constant"}),
    ("vae", "mlp"): ("vae_digits", VAE | {"model.widths": ((6,),)}),
    ("vae", "conv"): ("vae_conv_fashion", VAE | {"model.widths": ((6,),), "model.width": 3,
        "model.kernel": 3, "likelihood": "bernoulli", "binarize": "dynamic"}),
    ("vqvae", ""): ("vqvae_digits", DIGITS | {"model.channels": (3,), "model.size": 2,
        "codebook_size": 4, "model.kernel": 3}),
    ("lm", "transformer"): ("gpt_shakespeare_cpu", TEXT | TRANSFORMER),
    ("lm", "recurrent"): ("rnn_pydoc", TEXT | {"model.width": 6, "model.embedding": 4,
        "model.layers": 2, "data.order": "trial"}),
    ("mlm", ""): ("bert_pydoc", TEXT | TRANSFORMER),
    ("seq2seq", ""): ("seq2seq_multi30k", TEXT | TRANSFORMER | {"data.name": "pairs",
        "data.path": str(FILES / "pairs.tsv"), "data.length": 12, "best_mode": "min",
        "label_smoothing": 0.0, "num_beams": 1}),
    ("classifier", ""): ("classifier_mnist", DIGITS | {"model.channels": (3,), "model.kernel": 3,
        "model.size": 4, "best_metric": "valid/loss"}),
}  # fmt: skip

# Numbers whose two values take different paths through the code.
NUMBERS = {
    "grad_accumulation_steps": (1, 2),
    "critic_steps": (1, 2),
    "gan.pack": (1, 2),
    "gan.unroll": (0, 1),
    "model.d.maxout_pieces": (1, 2),
    "num_importance_samples": (1, 2),
    "latent_dims": ((3,), (3, 2)),
    "loss_chunk": (0, 4),
    "lora.rank": (0, 2),
    "num_beams": (1, 2),
    "label_smoothing": (0.0, 0.1),
    "model.kv_heads": (0, 1),
    "model.dropout": (0.0, 0.1),
    "frozen": ("", "kernel"),
    "run.mesh.data": (1, 2),
    "run.mesh.model": (1, 2),
}
# Keys that are tested elsewhere, and where.
TESTED_ELSEWHERE = {
    "method": "the bases",
    "network": "the bases",
    "metrics": "by `evaluate`, in test_options",
    "data.languages": "with real data, in test_option_flags",
}

# Data sets of each kind: those that the tests generate, and real ones, which a user may
# have on disk.
IMAGES = {
    "digits": {},
    "npz": {"data.path": str(FILES / "auto_auto.npz")},
    "folder": {"data.path": str(FILES / "folder"), "data.size": 8},
    "tfds": {"data.path": str(FILES / "tfds" / "made" / "1.0.0")},
    "hf": {"data.path": str(FILES / "hf_images"), "data.size": 8},
    "array_record": {"data.path": str(FILES / "image_records"), "data.size": 8},
}
POINTS = {"ring": {}, "grid": {}}
TEXTS = {
    "text": {"data.path": str(FILES / "texts")},
    "pydoc": {},
    "stdlib": {},
    "tokens": {"data.path": str(FILES / "tokens"), "data.tokenizer": "file"},
    "hf": {"data.path": str(FILES / "hf_texts")},
    "array_record": {"data.path": str(FILES / "text_records")},
}
PAIRS = {
    "pairs": {"data.path": str(FILES / "pairs.tsv"), "data.length": 12},
    "docstrings": {"data.length": 256},
    "hf": {"data.path": str(FILES / "hf_pairs"), "data.length": 12, "data.target_column": "b"},
}
# Keys of `data` that a data set of several kinds reads for one of them alone.
OF_KIND = {"image": ("size", "colour"), "text": (*data_schema.TOKENS, *data_schema.CLEANING)}
REAL = {
    **dict.fromkeys(
        ("mnist", "fashion_mnist", "binarized_mnist", "stacked_mnist", "cifar10"), "image"
    ),
    **dict.fromkeys(("shakespeare", "tang_poems", "journey_to_the_west", "nottingham"), "text"),
    "multi30k": "pairs",
}
# Small data sets, which are part of the pairwise design.
QUICK_DATA = (
    *("digits", "npz", "folder", "tfds", "hf", "array_record", "ring", "text", "tokens", "pairs"),
)

# (key, value) -> other keys that it requires.
WITH = {
    ("likelihood", "gaussian"): {"hp.sigma": 0.3},
    ("likelihood", "bernoulli"): {"binarize": "dynamic"},
    ("objective", "free_bits"): {"hp.free_bits": 0.1},
    ("penalty", "tc"): {"hp.penalty": 1.0},
    ("penalty", "mmd"): {"hp.penalty": 1.0},
    ("prior", "vamp"): {"model.pseudo": 3},
    ("latent_dims", (3, 2)): {"model.widths": ((6,), (4,))},
    ("model.scan", True): {"model.layers": 2},
    ("anneal.name", "linear"): {"anneal.period": "2 steps"},
    ("anneal.name", "cyclical"): {"anneal.period": "2 steps"},
    ("data.tokenizer", "file"): {"data.tokenizer_path": str(FILES / "tokenizer.json")},
    ("data.tokenizer", "bpe"): {"data.vocabulary": 270},
    ("data.prefix_lm", True): {"data.name": "pairs", "data.length": 12},
}


@functools.cache
def kind_of(base) -> dict:
    """The data sets that suit a base, without those of REAL."""
    method, network = base
    if method in ("gan", "vae", "vqvae", "classifier"):
        return IMAGES | (POINTS if network == "mlp" else {})
    if method == "seq2seq":
        return {name: PAIRS[name] for name in ("pairs", "hf")}
    return PAIRS | TEXTS


def keys_of_data(base, name) -> tuple:
    """The keys that a data set reads, of a kind that suits the base."""
    image = kind_of(base).keys() >= {"digits"}
    other = (*OF_KIND["text" if image else "image"], *(("prefix_lm",) if name == "hf" else ()))
    several = len([table for table in (IMAGES, TEXTS, PAIRS) if name in table]) > 1
    return tuple(key for key in data_schema.READ_BY[name] if not several or key not in other)


def keys_of_choice(base, name) -> dict:
    """The keys that the choice of a data set requires."""
    tables = (kind_of(base), IMAGES, POINTS, TEXTS, PAIRS)
    return next((table[name] for table in tables if name in table), {})


@functools.cache
def default(base):
    """The config of a base, and the values of its axes."""
    file, own = BASES[base]
    config = configs.override(config_files.load(CONFIGS / f"{file}.py"), SHORT | own)
    return config, {
        name: value for name, value in _options(configs.flatten_config(config), base).items()
    }


def _options(leaves: dict, base) -> dict:
    out = {}
    for key in keys_of(base):
        value = leaves.get(key.name, key.default)
        if key.type == NAMES:
            out |= {f"{key.name}:{name}": name in value for name in key.allowed}
        else:
            out[key.name] = value
    return out


def keys_of(base) -> list:
    """The keys of a base that have several values to test."""
    return [
        key
        for key in allowed_keys(*base).values()
        if key.name not in TESTED_ELSEWHERE
        and (key.allowed or key.type is bool or key.name in NUMBERS)
    ]


@functools.cache
def axes(base, quick=False) -> dict:
    """{axis: values that a run of the base may have}; `quick` leaves out data sets that
    take long to read.
    """
    every = all_axes(base, quick)
    fits = lambda axis, value: any(
        allowed(base, {"data.name": name} | {axis: value}) for name in every["data.name"]
    )
    return {
        axis: tuple(value for value in values if fits(axis, value))
        for axis, values in every.items()
    }


@functools.cache
def all_axes(base, quick=False) -> dict:
    """{axis: values} of a base, with those that no data set allows."""
    out = {}
    for key in keys_of(base):
        if key.type == NAMES:
            out |= {f"{key.name}:{name}": (False, True) for name in key.allowed}
        elif key.name == "data.name":
            out[key.name] = tuple(
                name
                for name in key.allowed
                if name in kind_of(base) and (name in QUICK_DATA or not quick)
            )
        else:
            values = tuple(key.allowed) or (
                (False, True) if key.type is bool else NUMBERS[key.name]
            )
            if key.name in NUMBERS and not all(value_type(key, v) for v in values):
                continue  # another method's key of this name, such as a GAN's latent_dim
            out[key.name] = values
    return {
        axis: values
        for axis, values in out.items()
        if not axis.startswith("data.") or reads(base, axis)
    }


def value_type(key, value) -> bool:
    return isinstance(value, tuple) == (key.type not in (int, float, str, int | None))


def reads(base, axis) -> bool:
    """Whether a data set of this base reads the key."""
    last = axis.split(".")[1]
    names = kind_of(base)
    return last in ("name", "order") or any(last in keys_of_data(base, name) for name in names)


def overrides(base, values: dict) -> dict:
    """The config overrides of a row: its values, and the keys that they require."""
    out, several = {}, {}
    for axis, value in values.items():
        key, _, name = axis.partition(":")
        if name:
            several.setdefault(key, []).extend([name] * value)
        else:
            out[key] = value
    out |= {key: tuple(names) for key, names in several.items()}
    file, own = BASES[base]
    needed = {k: v for item in values.items() for k, v in WITH.get(item, {}).items()}
    needed |= keys_of_choice(base, values.get("data.name"))
    if values.get("optimizer") == "sgd":  # its steps are as long as the gradients
        rates = [name for name in ("lr", "lr_g", "lr_d") if name in default(base)[0].hp]
        needed |= {f"hp.{name}": 1e-5 for name in rates}
    if values.get("data.name") == "npz":
        needed["data.path"] = str(
            npz_file(values.get("data.range", "auto"), values.get("data.layout", "auto"))
        )
    return SHORT | own | needed | out


def npz_file(span: str, layout: str) -> Path:
    """A file with the value range and axis order of the two keys; `auto` is
    [N, 8, 8, 1] of bytes.
    """
    return FILES / f"{span}_{layout}.npz"


def words(base, values: dict) -> list[str]:
    """The command line of a row, without subcommand and work directory."""
    changes = overrides(base, values)
    read = ("name", "order", "seed", *keys_of_data(base, changes["data.name"]))
    table = {key.name: key.default for key in data_schema.DATA}
    before = [key for key in default(base)[0].data if key not in read]  # of another data set
    changes = {
        k: v
        for k, v in changes.items()
        if k not in {f"data.{key}" for key in before} or k in values
    }
    changes |= {
        f"data.{key}": table[f"data.{key}"] for key in before if f"data.{key}" not in values
    }
    return [
        f"--config={CONFIGS / BASES[base][0]}.py",
        *(f"--config.{key}={value}" for key, value in changes.items()),
    ]


class Refusal(NamedTuple):
    """Incompatible options, and a part of the error message."""

    words: str
    when: dict  # axis -> the values
    bases: tuple = ()  # empty: all that have the axes
    package: str = ""  # refused only where it is not installed

    def applies(self, values: dict) -> bool:
        """Whether a row contains all of the options."""
        return all(axis in values and values[axis] in wrong for axis, wrong in self.when.items())


MLP_GAN, LM, RNN, MLM, SEQ = (
    ("gan", "mlp"),
    ("lm", "transformer"),
    ("lm", "recurrent"),
    ("mlm", ""),
    ("seq2seq", ""),
)
POINTS_SETS, LABELS = tuple(POINTS), ("concatenation", "projection", "auxiliary")
GREY = ("gaussian", "gaussian_scalar", "gaussian_pixel", "logistic", "logistic_pixel")
NEEDS_MEAN_LOSS = "needs a loss that is a mean over examples"  # not so on parts of a batch
REFUSALS = [
    # properties of the data
    Refusal("needs labels", {"data.name": POINTS_SETS, "gan.condition": LABELS}),
    Refusal("needs labels", {"data.name": POINTS_SETS, "conditional": (True,)}),
    *(
        Refusal("is for images", {"data.name": POINTS_SETS, f"gan.augment:{name}": (True,)})
        for name in ("colour", "translation", "cutout")
    ),
    *(
        Refusal("is for images", {"data.name": POINTS_SETS, f"gan.regularizers:{n}": (True,)})
        for n in ("consistency", "balanced_consistency")
    ),
    Refusal("is for black and white", {"data.name": POINTS_SETS, "likelihood": ("bernoulli",)}),
    Refusal("is for black and white", {"data.name": POINTS_SETS, "binarize": ("dynamic",)}),
    Refusal(
        "is for integer grey levels",
        {"data.name": POINTS_SETS, "likelihood": ("logistic", "logistic_pixel")},
    ),
    Refusal(
        "is for integer grey levels",
        {"data.range": ("0..1", "-1..1"), "likelihood": ("logistic", "logistic_pixel")},
    ),
    Refusal(
        "holds no text",
        {"data.name": ("pairs", "docstrings"), "data.prefix_lm": (False,)},
        (LM, RNN, MLM),
    ),
    Refusal("config.data.prefix_lm", {"data.prefix_lm": (True,)}, (SEQ,)),
    Refusal(
        "must be 'file'",
        {
            "data.name": ("tokens",),
            "data.tokenizer": ("bytes", "characters", "words", "chinese_words", "bpe"),
        },
    ),
    Refusal("is none of 80/10/10, 80/20", {"data.name": ("folder",), "data.split": ("90/10",)}),
    Refusal("needs the package wandb", {"run.log:wandb": (True,)}, package="wandb"),
    Refusal("needs the package jieba", {"data.tokenizer": ("chinese_words",)}, package="jieba"),
    Refusal("needs the package opencc", {"data.script": ("simplified",)}, package="opencc"),
    # parts of a method
    *(
        Refusal(
            "norm = 'instance' is for images", {f"model.{side}.norm": ("instance",)}, (MLP_GAN,)
        )
        for side in "gd"
    ),
    Refusal("packs examples of several classes", {"gan.condition": LABELS, "gan.pack": (2,)}),
    Refusal("is for black and white", {"likelihood": ("bernoulli",), "binarize": ("none",)}),
    Refusal(
        "goes with config.likelihood = 'bernoulli'", {"likelihood": GREY, "binarize": ("dynamic",)}
    ),
    Refusal("config.conditional must be False", {"prior": ("vamp",), "conditional": (True,)}),
    Refusal("is not the prior of", {"prior": ("vamp",), "penalty": ("mmd",)}),
    Refusal("needs the KL of each latent", {"prior": ("vamp",), "objective": ("free_bits",)}),
    Refusal("goes with an ELBO", {"penalty": ("tc", "mmd"), "objective": ("iwae", "dreg")}),
    *(
        Refusal("is for one stochastic layer", {"latent_dims": ((3, 2),), key: values})
        for key, values in (
            ("prior", ("vamp",)),
            ("objective", ("free_bits", "dreg")),
            ("penalty", ("tc", "mmd")),
        )
    ),
    Refusal("is for config.network = 'recurrent'", {"data.order": ("stream",)}, (LM,)),
    Refusal("is for config.network = 'transformer'", {"loss_chunk": (4,)}, (RNN,)),
    Refusal("scan = True is for networks of one stack", {"model.scan": (True,)}, (SEQ,)),
    Refusal("matches all parameters", {"lora.rank": (2,), "frozen": ("kernel",)}),
    # computations on parts of a batch
    *(
        Refusal(NEEDS_MEAN_LOSS, {"grad_accumulation_steps": (2,), key: values})
        for key, values in (
            ("model.g.norm", ("batch",)),
            ("model.d.norm", ("batch",)),
            ("model.d.minibatch_std", (True,)),
            ("gan.pack", (2,)),
            ("gan.unroll", (1,)),
            ("loss", ("relativistic_average",)),
            ("gan.regularizers:dragan", (True,)),
            ("gan.regularizers:mode_seeking", (True,)),
            ("penalty", ("tc", "mmd")),
            ("objective", ("free_bits",)),
        )
    ),
    *(
        Refusal(NEEDS_MEAN_LOSS, {"run.parallel": ("pmap",), key: values})
        for key, values in (
            ("model.d.minibatch_std", (True,)),
            ("gan.unroll", (1,)),
            ("loss", ("relativistic_average",)),
            ("gan.regularizers:dragan", (True,)),
            ("gan.regularizers:mode_seeking", (True,)),
            ("penalty", ("tc", "mmd")),
            ("objective", ("free_bits",)),
        )
    ),
    Refusal(
        "supports only data parallelism in one process",
        {"run.parallel": ("pmap",), "run.mesh.model": (2,)},
    ),
    Refusal(
        "supports only data parallelism in one process",
        {"run.parallel": ("pmap",), "run.fsdp": (True,), "run.mesh.data": (2,)},
    ),
]


# Options whose result is NaN on CPUs where XLA compiles without LLVM's optimization, as
# in the tests (`helpers.QUICK`): RMSprop's inverse root in the gradient through
# unrolled steps. With optimization, the default for users, the result is finite.
MISCOMPILED = [{"optimizer": "rmsprop", "gan.unroll": 1, "model.g.spectral": True}]


def allowed(base, values: dict) -> bool:
    """Whether the table of refusals allows these options of a base together."""
    sound = not any(values.items() >= some.items() for some in MISCOMPILED)
    return (
        sound
        and not any(r.applies(values) for r in refusals_of(base))
        and not unread(base, values)
        and weight(values) <= 2
    )


def weight(values: dict) -> int:
    """The number of penalties and unrolled steps of a row's program; more than two take
    a minute to compile.
    """
    return sum(
        values.get(axis) is True for axis in values if axis.startswith("gan.regularizers:")
    ) + values.get("gan.unroll", 0)


def second_derivatives(values: dict) -> int:
    """The number of second derivatives in a row's program."""
    return sum(
        values.get(f"gan.regularizers:{name}") is True
        for name in ("gradient_penalty", "dragan", "r1", "r2")
    ) + values.get("gan.unroll", 0)


@functools.cache
def refusals_of(base) -> list[Refusal]:
    """The refusals that can apply to the base with the installed packages."""
    here = [r for r in REFUSALS if not r.package or importlib.util.find_spec(r.package) is None]
    return [
        r
        for r in here
        if (not r.bases or base in r.bases) and r.when.keys() <= all_axes(base).keys()
    ]


def unread(base, values: dict) -> bool:
    """Whether a key of `data` is set that its data set does not read, which is refused.
    In a partial row without a data set: that no data set reads all of the keys.
    """
    name = values.get("data.name")
    if name is None:
        some = {axis: value for axis, value in values.items() if axis.startswith("data.")}
        return len(some) > 1 and all(
            unread(base, some | {"data.name": name}) for name in all_axes(base)["data.name"]
        )
    read = keys_of_data(base, name)
    wrong = [
        axis
        for axis in values
        if axis.startswith("data.") and axis.split(".")[1] not in ("name", "order", *read)
    ]
    return any(values[axis] != allowed_keys(*base)[axis].default for axis in wrong)
