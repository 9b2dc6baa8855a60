"""The table of all config keys, with their types, defaults, ranges and allowed values.

Loading, range checks, spelling suggestions and the identity of a run all use this
table. A key belongs to every config (BASE, DATA, RUN), to a method (METHODS), to a
network (MODEL), or is a traced number (HP). This module does not import jax: a sweep's
launcher checks configs that are trained elsewhere. Tests require the table to agree
with the tables and dataclass fields of the modules that read the keys.
"""

import functools
from typing import Any

from aigc_jax.core.model_keys import MODEL
from aigc_jax.core.schema import (
    ABOVE_ZERO,
    BELOW_ONE,
    DURATION,
    FLOAT,
    INTS,
    NAMES,
    REQUIRED,
    SEEDS,
    WIDTH,
    Key,
    choice_key,
    width_key,
)

# Part of every identity. Increment when the default of an existing key changes, since a
# config without the key then denotes another run; new keys need no increment.
IDENTITY_VERSION = 2

# Names that are allowed for several keys.
LIKELIHOODS = (
    "bernoulli",
    "gaussian",
    "gaussian_scalar",
    "gaussian_pixel",
    "logistic",
    "logistic_pixel",
)
REGULARIZERS = (
    "gradient_penalty",
    "dragan",
    "r1",
    "r2",
    "consistency",
    "balanced_consistency",
    "mode_seeking",
    "weight_clipping",
)
METRICS = (
    "frechet",
    "frechet_pixels",
    "kid",
    "prdc",
    "classifier_score",
    "class_accuracy",
    "stacked_modes",
    "neighbours",
    "parzen",
    "separability",
    "diversity",
    "modes",
    "nll",
    "bleu",
    "bleu_greedy",
    "rouge",
    "variety",
)
DATASETS = (
    "digits",
    "mnist",
    "fashion_mnist",
    "binarized_mnist",
    "stacked_mnist",
    "cifar10",
    "npz",
    "folder",
    "tfds",
    "ring",
    "grid",
    "shakespeare",
    "tang_poems",
    "journey_to_the_west",
    "nottingham",
    "pydoc",
    "stdlib",
    "text",
    "tokens",
    "pairs",
    "multi30k",
    "docstrings",
)

BASE = (
    choice_key("method", ("gan", "vae", "vqvae", "lm", "seq2seq", "mlm", "classifier")),
    Key("steps", DURATION),
    Key("batch_size", int, REQUIRED, 1, 2**20),
    Key("seed", int, 0, 0, SEEDS),
    # dtype of the networks' arithmetic; "bfloat16_all": of the parameters too
    choice_key("precision", ("float32", "float64", "bfloat16", "bfloat16_all"), "float32"),
    # dtype of the optimiser state; "": that of the parameters
    choice_key("optimizer_dtype", ("", "bfloat16"), ""),
    # number of equal parts of a batch whose gradients are computed sequentially, in the
    # memory of one part
    Key("grad_accumulation_steps", int, 1, 1, 2**20),
    # metrics over full splits
    Key("metrics", NAMES, (), allowed=METRICS),
    # number of samples that metrics draw
    Key("num_metric_samples", int, 1000, 2, 10**7),
    # feature extractor of metrics that compare features: "classifier", trained on the
    # data, or the path of Inception's weights
    Key("extractor", str, "classifier"),
    # logged metric that selects the best checkpoint, such as "valid/frechet_pixels"
    Key("best_metric", str, ""),
    choice_key("best_mode", ("min", "max"), "min"),
    # run directory whose parameters initialize the run
    Key("init_from", str, ""),
    # parameters to initialize from it: a regular expression on paths such as
    # params/g/Dense_0/kernel
    Key("init_match", str, ".*"),
    # parameters that are not trained: a regular expression on paths within a network,
    # such as Dense_0/kernel
    Key("frozen", str, ""),
    choice_key("optimizer", ("adam", "adam_1e-4", "adamw", "adagrad", "rmsprop", "sgd")),
    # schedule of the factor of the learning rate over the run
    choice_key("schedule.name", ("constant", "linear", "cosine", "inverse_sqrt", "burda")),
    Key("schedule.warmup", DURATION),
)

DATA = (
    choice_key("data.name", DATASETS),
    # npz: the file; folder, tokens: a directory; text: a file, a directory or a glob;
    # tfds: a directory or a name
    Key("data.path", str, ""),
    # npz: values of black and white; "auto": inferred where unambiguous
    choice_key("data.range", ("auto", "0..255", "0..1", "-1..1"), "auto"),
    # npz: axes of x; "auto": inferred where unambiguous
    choice_key("data.layout", ("auto", "NHWC", "NCHW"), "auto"),
    # folder: pixels per side
    Key("data.size", int, 64, 8, 1024),
    # folder
    choice_key("data.colour", ("rgb", "grey"), "rgb"),
    # folder, texts; without a test split, the valid split serves as both
    choice_key("data.split", ("80/10/10", "90/10", "80/20"), "80/10/10"),
    # "trial": shuffled by the trial's seed; "shared": shuffled by data.seed,
    # identically for all trials; "stream": in order
    choice_key("data.order", ("trial", "shared", "stream"), "trial"),
    Key("data.seed", int, 0, 0, SEEDS),
    # texts; "file": the tokenizer at data.tokenizer_path
    choice_key(
        "data.tokenizer", ("bytes", "characters", "words", "chinese_words", "bpe", "file"), "bytes"
    ),
    # path of a tokenizer.json or a run directory
    Key("data.tokenizer_path", str, ""),
    # maximum number of tokens, including the two special tokens; 0: no maximum, except
    # 10,000 for words and bpe
    Key("data.vocabulary", int, 0, 0, 2**22),
    # window length in tokens
    Key("data.length", int, 64, 1, 2**20),
    # texts: Unicode normal form; "": unchanged
    choice_key("data.normalize", ("", "NFC", "NFKC", "NFD", "NFKD"), ""),
    # convert to lower case
    Key("data.lower", bool, False),
    # control characters; "drop": remove all except line breaks and tabs
    choice_key("data.control", ("keep", "drop"), "keep"),
    # file with one word per line; these words are removed
    Key("data.stop_words", str, ""),
    # Chinese script: unchanged, or simplified
    choice_key("data.script", ("as_is", "simplified"), "as_is"),
    # multi30k: source and target language
    choice_key("data.languages", ("en-de", "en-fr", "de-en", "de-fr", "fr-en", "fr-de"), "en-de"),
    # pairs: source, line break and target as one text, for config.method = "lm"; only
    # the target is learned
    Key("data.prefix_lm", bool, False),
)

# data.name -> the keys of `data` that the data set reads, besides name, order and seed.
CLEANING = ("script", "normalize", "lower", "control", "stop_words")
TOKENS = ("tokenizer", "tokenizer_path", "vocabulary", "length")
TEXT = ("split", *TOKENS, *CLEANING)
DATA_KEYS = dict.fromkeys(DATASETS, ()) | {
    "npz": ("path", "range", "layout"),
    "folder": ("path", "size", "colour", "split"),
    "tfds": ("path",),
    **dict.fromkeys(
        ("shakespeare", "tang_poems", "journey_to_the_west", "nottingham", "pydoc", "stdlib"), TEXT
    ),
    "text": ("path", *TEXT),
    "tokens": ("path", *TOKENS),
    "pairs": ("path", "prefix_lm", *TEXT),
    "multi30k": ("languages", "prefix_lm", *TOKENS, *CLEANING),
    "docstrings": ("prefix_lm", *TEXT),
}

RUN = (
    # directory of data sets; "": $AIGC_DATA_DIR, or else ~/tensorflow_datasets
    Key("run.data_dir", str, ""),
    # where the data set is stored during training; "host": batches are transferred, for
    # data sets larger than a device's memory
    choice_key("run.data_placement", ("device", "host"), "device"),
    # devices along each axis of the mesh: trials, examples of a batch, parameters; -1:
    # all remaining devices
    Key("run.mesh.trial", int, 1, -1, 2**20),
    Key("run.mesh.data", int, -1, -1, 2**20),
    Key("run.mesh.model", int, 1, -1, 2**20),
    # "jit": XLA partitions one program; "pmap": each device runs the program on its
    # part of the batch (mesh.data only)
    choice_key("run.parallel", ("jit", "pmap"), "jit"),
    # shard a Transformer's activations between layers by positions over mesh.model
    Key("run.sequence_parallel", bool, False),
    # shard parameters and their moments over mesh.data too, gathered where a step needs
    # them
    Key("run.fsdp", bool, False),
    # interval of training rows, which include the last step; "never": no rows
    Key("run.log_every", DURATION, "100 steps"),
    Key("run.eval_every", DURATION, "1000 steps"),
    Key("run.sample_every", DURATION, "1000 steps"),
    Key("run.save_every", DURATION, "1000 steps"),
    # number of images in a sample grid
    Key("run.samples", int, 64, 1, 10**4),
    Key("run.tensorboard", bool, True),
    choice_key("run.wandb", ("off", "online", "offline"), "off"),
    # GPUs only: deterministic, slower kernels; CPUs are always deterministic
    Key("run.deterministic", bool, False),
)

# Keys of language models: label smoothing of the cross-entropy.
LM = (Key("label_smoothing", float, REQUIRED, 0, BELOW_ONE),)
IMAGES = (
    choice_key("likelihood", LIKELIHOODS),
    # "dynamic": grey levels are probabilities of binary images, which are sampled anew
    # in each step
    choice_key("binarize", ("none", "dynamic")),
)
METHODS = {
    "gan": (
        choice_key("network", ("mlp", "dcgan", "resnet")),
        # dimension of the noise
        width_key("latent_dim"),
        choice_key(
            "loss",
            (
                "minimax",
                "non_saturating",
                "least_squares",
                "wasserstein",
                "hinge",
                "relativistic_average",
            ),
        ),
        # discriminator updates per generator update
        Key("critic_steps", int, REQUIRED, 1, 1000),
        # penalties and bounds; the weight of each has its name in config.hp
        Key("gan.regularizers", NAMES, (), allowed=REGULARIZERS),
        # how labels condition the networks
        choice_key("gan.condition", ("none", "concatenation", "projection", "auxiliary"), "none"),
        # number of examples that the discriminator scores jointly
        Key("gan.pack", int, 1, 1, 1000),
        # unrolled discriminator updates in the generator's loss
        Key("gan.unroll", int, 0, 0, 1000),
        # augmentations of the discriminator's inputs in training
        Key("gan.augment", NAMES, (), allowed=("colour", "translation", "cutout")),
    ),
    "vae": (
        choice_key("network", ("mlp", "conv")),
        # dimensions of the latents, the one next to the data first
        Key("latent_dims", INTS, REQUIRED, 1, WIDTH),
        *IMAGES,
        # "vamp": a mixture of the posteriors of model.pseudo learned inputs
        choice_key("prior", ("normal", "vamp")),
        choice_key("objective", ("elbo", "free_bits", "iwae", "dreg")),
        # samples of the latents per example
        Key("num_importance_samples", int, REQUIRED, 1, 10**5),
        # total correlation or maximum mean discrepancy of a batch's latents, weighted
        # by hp.penalty
        choice_key("penalty", ("none", "tc", "mmd")),
        # condition on labels
        Key("conditional", bool),
        # samples of the latents per example in the metric nll
        Key("nll_samples", int, REQUIRED, 1, 10**6),
        # schedule of the factor of hp.beta over the run
        choice_key("anneal.name", ("constant", "linear", "cyclical")),
        Key("anneal.period", DURATION),
    ),
    "vqvae": (Key("codebook_size", int, REQUIRED, 2, 2**20), *IMAGES),
    "lm": (
        choice_key("network", ("transformer", "recurrent")),
        *LM,
        # Transformers: positions whose logits are materialized at once; 0: all
        Key("loss_chunk", int, 0, 0, 2**20),
        # low-rank adaptation of the matching kernels only; 0: all parameters are
        # trained
        Key("lora.rank", int, 0, 0, WIDTH),
        Key("lora.alpha", float, 16.0, 0, FLOAT),
        Key("lora.match", str, "."),
    ),
    "seq2seq": (
        *LM,
        Key("num_beams", int, REQUIRED, 1, 1000),
        Key("length_penalty", float, REQUIRED, -100, 100),
    ),
    "mlm": (Key("mask_rate", float, REQUIRED, 1e-6, BELOW_ONE),),  # fraction of masked tokens
    "classifier": (),
}

# Traced numbers. A config reads those of its choices (`core.hparams.READ_BY`) and must
# not contain others.
HP = tuple(
    Key(f"hp.{name}", float, default, low, high)
    for name, default, low, high in (
        ("lr", REQUIRED, 0, FLOAT),  # the peak of the schedule
        ("lr_g", REQUIRED, 0, FLOAT),
        ("lr_d", REQUIRED, 0, FLOAT),
        ("beta1", 0.9, 0, BELOW_ONE),
        ("beta2", 0.999, 0, BELOW_ONE),
        ("weight_decay", 0.01, 0, FLOAT),
        ("grad_clip", 0.0, 0, FLOAT),  # maximum global norm of gradients; 0: no limit
        # decay of the moving average of weights, or of a codebook's counts and sums
        ("ema_decay", REQUIRED, 0, BELOW_ONE),
        ("smoothing", 0.0, 0, 1),  # one-sided label smoothing of a GAN
        ("auxiliary", 1.0, 0, FLOAT),  # weight of the classes' cross-entropy
        ("beta", 1.0, 0, FLOAT),  # weight of the KL divergence
        ("free_bits", REQUIRED, 0, FLOAT),  # nats per latent
        ("penalty", REQUIRED, 0, FLOAT),  # weight of config.penalty
        ("sigma", REQUIRED, ABOVE_ZERO, FLOAT),  # of a Gaussian likelihood
        ("commitment", 0.25, 0, FLOAT),  # beta of van den Oord et al. 2017, eq. 3
        # fraction of the uniform count below which a code is reset; 0: only if its
        # count is 0
        ("restart", 0.0, 0, 1),
        # weights of the regularizers, by default as in their papers; weight_clipping:
        # the bound of the weights
        *(
            (name, dict(mode_seeking=1.0, weight_clipping=0.01).get(name, 10.0), 0, FLOAT)
            for name in REGULARIZERS
        ),
    )
)


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
    return {key.name: key for key in (*BASE, *METHODS.get(method, ()), *HP, *model, *DATA, *RUN)}


def section_defaults(section: str) -> dict[str, Any]:  # nested; of "data" or "run"
    """Return the defaults of `data` or `run` as a nested dict; "" for required keys."""
    out: dict = {}
    for key in dict(data=DATA, run=RUN)[section]:
        *parents, last = key.name.split(".")[1:]
        inner = functools.reduce(lambda inner, parent: inner.setdefault(parent, {}), parents, out)
        inner[last] = "" if key.default is REQUIRED else key.default
    return out
