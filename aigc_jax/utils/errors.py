"""The exception for user-facing errors, which are shown as a message without a
traceback, and helpers that compose such messages.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

V = TypeVar("V")

# Common names in the field -> names in the tables of this package, which error messages
# suggest where they are allowed.
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
    "rmsnorm": "rms", "rope": "rotary", "sin": "sinusoidal", "pre_norm": "pre", "post_norm": "post",
    "vanilla_rnn": "rnn", "noam": "inverse_sqrt", "warmup_cosine": "cosine", "none": "constant",
    "momentum": "sgd", "fp32": "float32", "bf16": "bfloat16", "fp64": "float64",
    "double": "float64", "cifar": "cifar10", "fashion": "fashion_mnist", "imagefolder": "folder",
    "images": "folder", "tiny_shakespeare": "shakespeare", "gray": "grey", "grayscale": "grey",
    "char": "characters", "chars": "characters", "word": "words", "byte": "bytes", "gpt2": "file",
    "hp.learning_rate": "hp.lr", "epochs": "steps", "num_steps": "steps", "max_steps": "steps",
    "model.n_layer": "model.layers", "model.num_layers": "model.layers",
    "model.num_heads": "model.heads", "model.n_head": "model.heads", "model.n_embd": "model.width",
    "model.d_model": "model.width", "best": "best_metric", "z": "latent_dim", "z_dim": "latent_dim",
    "n_critic": "critic_steps", "hp.clip": "hp.grad_clip", "hp.max_grad_norm": "hp.grad_clip",
    "beam_size": "num_beams", "num_codes": "codebook_size", "num_embeddings": "codebook_size",
    "mlm_probability": "mask_rate", "model.rope": "model.position_encoding",
}  # fmt: skip


# Delimits the name of an argument in an error message. No path, command-line word or
# environment variable can contain this character.
MARK = "\x00"
_MARKED = re.compile(f"{MARK}([A-Za-z_]+){MARK}")
PROGRAM = "aigc"  # the command, where an error message names a command line


def mark_argument(name: str) -> str:  # for `UserError.spell_arguments`
    """Return the marked name of an argument for an error message: Python callers read
    `what`, and the command line adds the dashes (`UserError.spell_arguments`).
    """
    return f"{MARK}{name}{MARK}"


def format_command(verb: str, **flags: object) -> str:
    """Return a command line for an error message, such as command("train",
    workdir="DIR", restart=True).

    Args:
      verb: a verb of the command line, such as "train".
      **flags: its flags, as in `format_flags`.
    """
    return " ".join([mark_argument(PROGRAM), verb, *format_flags(**flags)])


def format_flags(**arguments: object) -> list[str]:  # "--name=value" or "--name"
    """Return arguments as command-line flags. True is a flag without a value; False is
    omitted.
    """
    options = ((f"--{key}", value) for key, value in arguments.items() if value is not False)
    return [flag if value is True else f"{flag}={value}" for flag, value in options]


class UserError(Exception):
    """An error that the user can correct. The message names the config key or argument,
    the value and the allowed values; `mark_argument` marks argument names.
    """

    def __str__(self) -> str:
        return self.spell_arguments(lambda name: name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def spell_arguments(self, spell: Callable[[str], str]) -> str:  # the message
        """Return the message, with spell(name) for each argument name."""
        return _MARKED.sub(lambda found: spell(found[1]), super().__str__())


class FormatError(UserError):
    """A file of another format version, which is not damaged but cannot be used."""


def format_suggestion(name: str, allowed: Iterable[str]) -> str:  # "; did you mean 'x'?" or ""
    """Return `; did you mean 'x'?` for the allowed name that `name` is a synonym of,
    or else for the allowed name with the nearest spelling; "" where none is near.

    Args:
      name: the unknown name.
      allowed: the names to suggest from.
    """
    allowed = list(map(str, allowed))
    word = str(name)[:200].lower().replace("-", "_")
    if SYNONYMS.get(word) in allowed:
        return f"; did you mean {SYNONYMS[word]!r}?"
    close = difflib.get_close_matches(str(name)[:200], allowed, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def short_repr(value: object, quote_strings: bool = True, max_characters: int = 80) -> str:
    """Return the repr of a value as a short text for a message.

    Args:
      value: any value.
      quote_strings: whether a string is returned as its repr.
      max_characters: characters above which the text is shortened, by "...".
    """
    try:
        text = repr(value) if quote_strings or not isinstance(value, str) else value
    except ValueError:  # an integer of more digits than Python writes
        return f"a {type(value).__name__} of too many digits"
    return (
        text
        if len(text) <= max_characters
        else (f"{text[: max_characters // 2]}...{text[-max_characters // 4 :]}")
    )


def join_names(names: Iterable[str], max_names: int = 30) -> str:
    """Join the first `max_names` names by commas, and append the number of omitted
    names.
    """
    names = list(map(str, names))
    more = f" and {len(names) - max_names:,} more" if len(names) > max_names else ""
    return ", ".join(names[:max_names]) + more


def choose(table: Mapping[str, V], name: str, setting: str) -> V:  # table[name]
    """Return table[name].

    Args:
      table: {name: value}.
      name: the name that the user chose.
      setting: the config key, such as "config.loss", or the argument, such as "what",
        that holds the name; for the error message.

    Raises:
      UserError: `name` is not in the table; the message lists the names that are.
    """
    if name in table:
        return table[name]
    setting = mark_argument(setting) if setting.isidentifier() else setting
    raise UserError(
        f"{setting} = {short_repr(name)} is none of "
        f"{join_names(table, 60)}{format_suggestion(name, table)}"
    )


def require(condition: object, message: str) -> None:
    """Raise a UserError unless the condition holds.

    Args:
      condition: any object, by its truth value.
      message: the message; `mark_argument` marks names in it.
    """
    if not condition:
        raise UserError(message)


def check_type(
    argument_name: str, value: object, types: type | tuple[type, ...], expected: str
) -> None:
    """Raise a UserError unless an argument has one of the types.

    Args:
      argument_name: the argument's name.
      value: its value.
      types: the allowed type or types; a bool is an instance of `bool` only.
      expected: a description of the types, such as "a number of seeds".
    """
    types = types if isinstance(types, tuple) else (types,)
    is_valid = isinstance(value, types) and (bool in types or not isinstance(value, bool))
    require(is_valid, f"{mark_argument(argument_name)}={short_repr(value)} must be {expected}")


def first_line(error: Exception, max_characters: int = 200) -> str:  # of its message
    """Return the first line of an exception's message, or its type if the message is
    empty.
    """
    lines = str(error).strip().splitlines()
    return lines[0][:max_characters] if lines else type(error).__name__
