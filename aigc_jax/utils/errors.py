"""The one exception that is shown to a user as a sentence instead of a traceback."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

V = TypeVar("V")

# Common names in the field -> those of the tables here, suggested where allowed.
SYNONYMS = {
    "fid": "frechet", "frechet_inception_distance": "frechet", "mmd2": "kid", "precision": "prdc",
    "recall": "prdc", "density": "prdc", "coverage": "prdc", "precision_recall": "prdc",
    "is": "classifier_score", "inception_score": "classifier_score", "c2st": "separability",
    "ms_ssim": "diversity", "log_likelihood": "nll", "self_bleu": "variety", "distinct": "variety",
    "distinct_n": "variety", "rouge_l": "rouge", "sacrebleu": "bleu", "vanilla": "minimax",
    "bce": "non_saturating", "ns": "non_saturating", "nsgan": "non_saturating",
    "lsgan": "least_squares", "mse": "least_squares", "wgan": "wasserstein",
    "ragan": "relativistic_average", "relativistic": "relativistic_average",
    "gp": "gradient_penalty", "wgan_gp": "gradient_penalty", "clip": "weight_clipping",
    "cr": "consistency", "bcr": "balanced_consistency", "acgan": "auxiliary",
    "cgan": "concatenation", "concat": "concatenation", "diffaugment": "translation",
    "bce_logits": "bernoulli", "normal": "gaussian", "discretized_logistic": "logistic",
    "factor_vae": "tc", "tcvae": "tc", "wae": "mmd", "vampprior": "vamp", "lrelu": "leaky_relu",
    "linear": "identity", "gelu_new": "gelu", "bn": "batch", "batchnorm": "batch",
    "batch_norm": "batch", "ln": "layer", "layernorm": "layer", "layer_norm": "layer",
    "rmsnorm": "rms", "rope": "rotary", "sin": "sinusoidal", "pre": "before", "post": "after",
    "vanilla_rnn": "rnn", "noam": "inverse_sqrt", "warmup_cosine": "cosine", "none": "constant",
    "momentum": "sgd", "fp32": "float32", "bf16": "bfloat16", "fp64": "float64",
    "double": "float64", "cifar": "cifar10", "fashion": "fashion_mnist", "imagefolder": "folder",
    "images": "folder", "tiny_shakespeare": "shakespeare", "gray": "grey", "grayscale": "grey",
    "char": "characters", "chars": "characters", "word": "words", "byte": "bytes", "gpt2": "file",
    "hp.learning_rate": "hp.lr", "epochs": "steps", "num_steps": "steps", "max_steps": "steps",
    "model.n_layer": "model.layers", "model.num_layers": "model.layers",
    "model.num_heads": "model.heads", "model.n_head": "model.heads", "model.n_embd": "model.width",
    "model.d_model": "model.width", "latent_dim": "z", "n_critic": "critic_steps",
}  # fmt: skip


# How a sentence marks the name of an argument. No path, word of a command line or
# environment variable can hold the character.
MARK = "\x00"
_MARKED = re.compile(f"{MARK}([A-Za-z_]+){MARK}")
PROGRAM = "aigc"  # the command, where a sentence names a command line


def argument(name: str) -> str:
    """The name of an argument within a sentence: a Python user reads `what`, and the
    command line writes the dashes (`UserError.spelled`).
    """
    return f"{MARK}{name}{MARK}"


def command(verb: str, **arguments) -> str:
    """A command line within a sentence: command("train", workdir="DIR", restart=True).
    True is a flag without a value.
    """
    return " ".join([argument(PROGRAM), verb, *flags(**arguments)])


def flags(**arguments) -> list[str]:
    """Arguments as words of the command line; True: a flag alone, False: none."""
    given = ((f"--{key}", value) for key, value in arguments.items() if value is not False)
    return [flag if value is True else f"{flag}={value}" for flag, value in given]


class UserError(Exception):
    """Something that the user can mend. The text is one sentence that names the key or
    the argument, the value and what is allowed; `argument` marks the arguments.
    """

    def __str__(self) -> str:
        return self.spelled(lambda name: name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def spelled(self, spell: Callable[[str], str]) -> str:
        """The sentence, with each argument's name as `spell` writes it."""
        return _MARKED.sub(lambda found: spell(found[1]), super().__str__())


class FormatError(UserError):
    """A file of another version, which is neither damaged nor to be used."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?`: the field's other name of an allowed one, or the nearest
    spelling; nothing where none is near.
    """
    allowed = list(map(str, allowed))
    word = str(name)[:200].lower().replace("-", "_")
    if SYNONYMS.get(word) in allowed:
        return f"; did you mean {SYNONYMS[word]!r}?"
    close = difflib.get_close_matches(str(name)[:200], allowed, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def brief(value: object, quotes: bool = True, most: int = 80) -> str:
    """`repr` of a value, or the text itself, cut where it is long."""
    try:
        text = repr(value) if quotes or not isinstance(value, str) else value
    except ValueError:  # an integer of more digits than Python writes
        return f"a {type(value).__name__} of too many digits"
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 4 :]}"


def listing(names: Iterable[str], most: int = 30) -> str:
    """The names by commas; of more than `most` the first, and how many are left."""
    names = list(map(str, names))
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def choose(table: Mapping[str, V], name: str, key: str) -> V:
    """`table[name]`; a name that is not there raises a UserError that lists what is.
    key: "config.loss", or the name of an argument such as "what".
    """
    if name in table:
        return table[name]
    key = argument(key) if key.isidentifier() else key
    raise UserError(f"{key} = {brief(name)} is none of {listing(table, 60)}{nearest(name, table)}")


def require(condition: object, sentence: str) -> None:
    """Raise `UserError(sentence)` unless the condition holds."""
    if not condition:
        raise UserError(sentence)


def check_type(name: str, value: object, kinds: type | tuple[type, ...], wanted: str) -> None:
    """Raise a UserError unless the argument `name` is of one of the types; a truth
    value is no number. wanted: in words, "a number of seeds".
    """
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    sound = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    require(sound, f"{argument(name)}={brief(value)} must be {wanted}")


def first_line(error: Exception, most: int = 200) -> str:
    """The first line of what an exception says, or its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:most] if lines else type(error).__name__
