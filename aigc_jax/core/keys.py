"""The table of all keys of a config: type, default, range and allowed values of each.

Loading, ranges, nearest spellings and the identity of a run all read this one table. A
key is either of every config (BASE, DATA, RUN), of a method (METHODS), of a network
(MODEL) or a traced number (HP). Nothing here imports jax: a sweep's launcher checks
what is trained elsewhere. Tests hold the table equal to the tables and the dataclass
fields of the modules that read the keys.
"""

import functools

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
    one_of,
    width,
)

# Part of every identity. It must be raised when the default of an existing key changes,
# since a config without the key then means another run; new keys need no change.
IDENTITY_VERSION = 1

# Names that several keys allow.
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
    "frechet", "frechet_pixels", "kid", "prdc", "classifier_score", "class_accuracy",
    "stacked_modes", "neighbours", "parzen", "separability", "diversity", "modes", "nll", "bleu",
    "bleu_greedy", "rouge", "variety",
)  # fmt: skip
DATASETS = (
    "digits", "mnist", "fashion_mnist", "binarized_mnist", "stacked_mnist", "cifar10", "npz",
    "folder", "tfds", "ring", "grid", "shakespeare", "tang_poems", "journey_to_the_west",
    "nottingham", "pydoc", "stdlib", "text", "tokens", "pairs", "multi30k", "docstrings",
)  # fmt: skip

BASE = (
    one_of("method", ("gan", "vae", "vqvae", "lm", "seq2seq", "mlm", "classifier")),
    Key("steps", DURATION),
    Key("batch_size", int, REQUIRED, 1, 2**20),
    Key("seed", int, 0, 0, SEEDS),
    # the networks' arithmetic; "bfloat16_all": parameters too
    one_of("precision", ("float32", "float64", "bfloat16", "bfloat16_all"), "float32"),
    # the dtype of the optimiser's state; "": that of the parameters
    one_of("moments", ("", "bfloat16"), ""),
    # equal parts of a batch whose gradients are computed one after another, in the
    # memory of one
    Key("accumulate", int, 1, 1, 2**20),
    # metrics over whole splits
    Key("metrics", NAMES, (), allowed=METRICS),
    # samples that the metrics draw
    Key("metric_samples", int, 1000, 2, 10**7),
    # of the features that metrics compare: "classifier", trained on the data, or the
    # path of Inception's weights
    Key("extractor", str, "classifier"),
    # the row metric that picks the best checkpoint, such as "valid/frechet_pixels"
    Key("best", str, ""),
    one_of("best_mode", ("min", "max"), "min"),
    # a run directory whose parameters the run begins with
    Key("init_from", str, ""),
    # which of them: a regular expression on paths such as params/g/Dense_0/kernel
    Key("init_match", str, ".*"),
    # parameters that stay as they begin: a regular expression on paths within a
    # network, such as Dense_0/kernel
    Key("frozen", str, ""),
    one_of("optimizer", ("adam", "adam_1e-4", "adamw", "adagrad", "rmsprop", "sgd")),
    # the factor of the learning rate over the run
    one_of("schedule.name", ("constant", "linear", "cosine", "inverse_sqrt", "burda")),
    Key("schedule.warmup", DURATION),
)

DATA = (
    one_of("data.name", DATASETS),
    # npz: the file; folder, tokens: a directory; text: a file, a directory or a glob;
    # tfds: a directory or a name
    Key("data.path", str, ""),
    # npz: the values of black and white; "auto": recognised where they are certain
    one_of("data.range", ("auto", "0..255", "0..1", "-1..1"), "auto"),
    # npz: the axes of x; "auto": recognised where they are certain
    one_of("data.layout", ("auto", "NHWC", "NCHW"), "auto"),
    # folder: pixels a side
    Key("data.size", int, 64, 8, 1024),
    # folder
    one_of("data.colour", ("rgb", "grey"), "rgb"),
    # folder, texts; without a test split the valid one is both
    one_of("data.split", ("80/10/10", "90/10", "80/20"), "80/10/10"),
    # shuffled by the trial's seed; "shared": by data.seed, alike for all trials;
    # "stream": in order
    one_of("data.order", ("trial", "shared", "stream"), "trial"),
    Key("data.seed", int, 0, 0, SEEDS),
    # texts; "file": the tokenizer at data.tokenizer_path
    one_of(
        "data.tokenizer", ("bytes", "characters", "words", "chinese_words", "bpe", "file"), "bytes"
    ),
    # a tokenizer.json or a run directory
    Key("data.tokenizer_path", str, ""),
    # the most tokens, the two special ones included; 0: as many as there are, of words
    # and bpe 10,000
    Key("data.vocabulary", int, 0, 0, 2**22),
    # tokens of a window
    Key("data.length", int, 64, 1, 2**20),
    # texts: Unicode's normal form; "": as they are
    one_of("data.normalize", ("", "NFC", "NFKC", "NFD", "NFKD"), ""),
    # in small letters
    Key("data.lower", bool, False),
    # control characters; "drop": all but line breaks and tabs
    one_of("data.control", ("keep", "drop"), "keep"),
    # a file with a word a line; these are removed
    Key("data.stop_words", str, ""),
    # Chinese as it is written, or simplified
    one_of("data.script", ("as_is", "simplified"), "as_is"),
    # multi30k: from, to
    one_of("data.languages", ("en-de", "en-fr", "de-en", "de-fr", "fr-en", "fr-de"), "en-de"),
    # pairs: source, line break and target as one text, for config.method = "lm"; the
    # target alone is learned
    Key("data.joined", bool, False),
)

# data.name -> the keys of `data` that it reads beside name, order and seed.
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
    "pairs": ("path", "joined", *TEXT),
    "multi30k": ("languages", "joined", *TOKENS, *CLEANING),
    "docstrings": ("joined", *TEXT),
}

RUN = (
    # where data sets are stored; else $AIGC_DATA_DIR, else ~/tensorflow_datasets
    Key("run.data_dir", str, ""),
    # where the data set is stored during training; "host": batches are sent, for what
    # is larger than a device
    one_of("run.data", ("device", "host"), "device"),
    # devices along each axis of the mesh: trials, examples of a batch, parameters; -1:
    # what is left
    Key("run.mesh.trial", int, 1, -1, 2**20),
    Key("run.mesh.data", int, -1, -1, 2**20),
    Key("run.mesh.model", int, 1, -1, 2**20),
    # "jit": XLA divides one program; "pmap": each device runs it on its part of the
    # batch (mesh.data alone)
    one_of("run.parallel", ("jit", "pmap"), "jit"),
    # divides a Transformer's activations between layers over mesh.model by positions
    Key("run.sequence", bool, False),
    # parameters and their moments divided over mesh.data too, gathered where a step
    # needs them
    Key("run.fsdp", bool, False),
    # rows of training, and one of the last step; "never": none
    Key("run.log_every", DURATION, "100 steps"),
    Key("run.eval_every", DURATION, "1000 steps"),
    Key("run.sample_every", DURATION, "1000 steps"),
    Key("run.save_every", DURATION, "1000 steps"),
    # images in a sample grid
    Key("run.samples", int, 64, 1, 10**4),
    Key("run.tensorboard", bool, True),
    one_of("run.wandb", ("off", "online", "offline"), "off"),
    # GPU only: deterministic kernels, slower; the CPU always is
    Key("run.deterministic", bool, False),
)

# Keys of language models: the smoothing of the targets in the cross-entropy.
LM = (Key("smoothing", float, REQUIRED, 0, BELOW_ONE),)
IMAGES = (
    one_of("likelihood", LIKELIHOODS),
    # "dynamic": grey levels are probabilities of black and white images, drawn anew
    # each step
    one_of("binarize", ("none", "dynamic")),
)
METHODS = {
    "gan": (
        one_of("network", ("mlp", "dcgan", "resnet")),
        # size of the noise
        width("z"),
        one_of(
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
        # updates of the discriminator for each of the generator
        Key("critic_steps", int, REQUIRED, 1, 1000),
        # penalties and bounds, each with a weight of its name in config.hp
        Key("game.regularizers", NAMES, (), allowed=REGULARIZERS),
        # how labels come in
        one_of("game.condition", ("none", "concatenation", "projection", "auxiliary"), "none"),
        # examples that the discriminator judges together
        Key("game.pack", int, 1, 1, 1000),
        # updates of the discriminator that the generator looks ahead
        Key("game.unroll", int, 0, 0, 1000),
        # of what the discriminator sees in training
        Key("game.augment", NAMES, (), allowed=("colour", "translation", "cutout")),
    ),
    "vae": (
        one_of("network", ("mlp", "conv")),
        # sizes of the latents, from the data up
        Key("z", INTS, REQUIRED, 1, WIDTH),
        *IMAGES,
        # "vamp": a mixture of the posteriors of model.pseudo learned inputs
        one_of("prior", ("normal", "vamp")),
        one_of("bound", ("elbo", "free_bits", "iwae", "dreg")),
        # draws of the latents for each example
        Key("k", int, REQUIRED, 1, 10**5),
        # total correlation or discrepancy of a batch's latents, times hp.penalty
        one_of("penalty", ("none", "tc", "mmd")),
        # on labels
        Key("conditional", bool),
        # draws for each example in the metric nll
        Key("nll_samples", int, REQUIRED, 1, 10**6),
        # the factor of hp.beta over the run
        one_of("anneal.name", ("constant", "linear", "cyclical")),
        Key("anneal.period", DURATION),
    ),
    "vqvae": (Key("codes", int, REQUIRED, 2, 2**20), *IMAGES),
    "lm": (
        one_of("network", ("transformer", "recurrent")),
        *LM,
        # Transformers: positions whose logits exist at once; 0: all
        Key("loss_chunk", int, 0, 0, 2**20),
        # low-rank adaptation of the matching kernels alone; 0: all parameters train
        Key("lora.rank", int, 0, 0, WIDTH),
        Key("lora.alpha", float, 16.0, 0, FLOAT),
        Key("lora.match", str, "."),
    ),
    "seq2seq": (
        *LM,
        Key("beams", int, REQUIRED, 1, 1000),
        Key("length_penalty", float, REQUIRED, -100, 100),
    ),
    "mlm": (Key("masked", float, REQUIRED, 1e-6, BELOW_ONE),),  # the share of tokens that is hidden
    "classifier": (),
}

# Traced numbers. A config reads those of its choices (`core.hparams.READ_BY`) and may
# hold no others.
HP = tuple(
    Key(f"hp.{name}", float, default, low, high)
    for name, default, low, high in (
        ("lr", REQUIRED, 0, FLOAT),  # the peak of the schedule
        ("lr_g", REQUIRED, 0, FLOAT),
        ("lr_d", REQUIRED, 0, FLOAT),
        ("beta1", 0.9, 0, BELOW_ONE),
        ("beta2", 0.999, 0, BELOW_ONE),
        ("weight_decay", 0.01, 0, FLOAT),
        ("clip", 0.0, 0, FLOAT),  # the most of the gradients' joint norm; 0: any
        # the decay of averaged weights, or of a codebook's counts and sums
        ("ema_decay", REQUIRED, 0, BELOW_ONE),
        ("smoothing", 0.0, 0, 1),  # one-sided label smoothing of a GAN
        ("auxiliary", 1.0, 0, FLOAT),  # the weight of the classes' cross-entropy
        ("beta", 1.0, 0, FLOAT),  # the weight of the KL divergence
        ("free_bits", REQUIRED, 0, FLOAT),  # nats a latent
        ("penalty", REQUIRED, 0, FLOAT),  # the weight of config.penalty
        ("sigma", REQUIRED, ABOVE_ZERO, FLOAT),  # of a Gaussian likelihood
        ("commitment", 0.25, 0, FLOAT),  # beta of van den Oord et al. 2017, eq. 3
        # the share of its fair count below which a code is replaced; 0: none is
        ("restart", 0.0, 0, 1),
        # weights of the regularizers, those of their papers, and a weight's bound
        *(
            (name, dict(mode_seeking=1.0, weight_clipping=0.01).get(name, 10.0), 0, FLOAT)
            for name in REGULARIZERS
        ),
    )
)


@functools.cache
def keys_of(method: str, network: str = "") -> dict[str, Key]:
    """{name: key} of all that a config of this method and network may hold; without
    `model.*` where there is no such network.
    """
    parts = MODEL.get((method, network), {})
    model = [
        key._replace(name=".".join(filter(None, ("model", part, key.name))))
        for part, keys in parts.items()
        for key in keys
    ]
    return {key.name: key for key in (*BASE, *METHODS.get(method, ()), *HP, *model, *DATA, *RUN)}


def defaults_of(section: str) -> dict:
    """The defaults of `data` or `run` as a nested dict; what is required is ""."""
    out: dict = {}
    for key in dict(data=DATA, run=RUN)[section]:
        *parents, last = key.name.split(".")[1:]
        inner = functools.reduce(lambda inner, parent: inner.setdefault(parent, {}), parents, out)
        inner[last] = "" if key.default is REQUIRED else key.default
    return out
