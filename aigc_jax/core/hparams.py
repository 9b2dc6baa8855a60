"""The hyper-parameters (keys hp.*) that a config reads. Their defaults and ranges are
in `core.keys.HP`. This module does not import jax.
"""

from typing import Any

from aigc_jax.core.keys import HP, REGULARIZERS
from aigc_jax.core.schema import REQUIRED
from aigc_jax.utils.errors import UserError, format_suggestion, require

DEFAULTS = {key.name.removeprefix("hp."): key.default for key in HP}

# static key -> its value (or each entry of a tuple) -> the hyper-parameters that this
# choice reads
READ_BY: dict[str, dict[str, tuple[str, ...]]] = {
    "method": {
        "gan": ("lr_g", "lr_d", "ema_decay", "smoothing"),
        "vae": ("lr", "beta"),
        "vqvae": ("lr", "commitment", "ema_decay", "restart"),
        **dict.fromkeys(("lm", "seq2seq", "mlm", "classifier"), ("lr",)),
    },
    "optimizer": {
        "adam": ("beta1", "beta2"),
        "adam_1e-4": ("beta1", "beta2"),
        "adamw": ("beta1", "beta2", "weight_decay", "grad_clip"),
        "adagrad": (),
        "rmsprop": ("beta2",),
        "sgd": ("beta1",),
    },
    "gan.condition": {"auxiliary": ("auxiliary",)},
    "gan.regularizers": {name: (name,) for name in REGULARIZERS},
    "likelihood": {"gaussian": ("sigma",)},
    "objective": {"free_bits": ("free_bits",)},
    "penalty": {"tc": ("penalty",), "mmd": ("penalty",)},
}


def applicable_hparams(leaves: dict[str, Any]) -> tuple[str, ...]:  # names without "hp."
    """Return the names, without "hp.", of the hyper-parameters that the choices of a
    config with these leaves read, in the order of READ_BY.
    """
    names: dict[str, None] = {}
    for key, table in READ_BY.items():
        value = leaves.get(key, ())
        for choice in value if isinstance(value, tuple) else (value,):
            names |= dict.fromkeys(table.get(choice, ()))
    return tuple(names)


def check_hparams(leaves: dict[str, Any]) -> None:  # required ones are set, no others
    """Raise a UserError unless the leaves contain every hyper-parameter without a
    default that their choices read, and no hyper-parameter that their choices do not
    read.
    """
    names = applicable_hparams(leaves)
    choice = f"config.method = {leaves['method']!r} with config.optimizer = {leaves['optimizer']!r}"
    for name in (key.removeprefix("hp.") for key in leaves if key.startswith("hp.")):
        if name not in names:
            raise UserError(
                f"config.hp.{name} is not read by {choice}, which reads "
                f"{', '.join(names)}{format_suggestion(name, names)}"
            )
    for name in names:
        has_value = f"hp.{name}" in leaves or DEFAULTS[name] is not REQUIRED
        require(has_value, f"config.hp.{name} is missing; {choice} reads {', '.join(names)}")
