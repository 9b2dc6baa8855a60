"""Optimisers and hyper-parameters: the traced numbers of a config. This module does
not import jax.
"""

from typing import Any, NamedTuple

from aigc_jax.core.schema import ABOVE_ZERO, BELOW_ONE, FLOAT, REQUIRED, Key
from aigc_jax.methods.choices import REGULARIZER_WEIGHTS, REGULARIZERS


class OptimizerSchema(NamedTuple):
    """What a config needs to know of an update rule of `methods.optimizers`."""

    help: str
    hparams: tuple[str, ...]  # names, without "hp.", of the hyper-parameters that it reads


OPTIMIZERS = {
    "adam": OptimizerSchema("Adam (Kingma & Ba 2015)", ("beta1", "beta2")),
    "adam_1e-4": OptimizerSchema(
        "Adam with 1e-4 added to the square root (Burda et al. 2016)", ("beta1", "beta2")
    ),
    "adamw": OptimizerSchema(
        "Adam with decoupled weight decay and clipped gradients (Loshchilov & Hutter 2019)",
        ("beta1", "beta2", "weight_decay", "grad_clip"),
    ),
    "adagrad": OptimizerSchema("Adagrad (Duchi et al. 2011)", ()),
    "rmsprop": OptimizerSchema("RMSProp, of decay beta2 (Tieleman & Hinton 2012)", ("beta2",)),
    "sgd": OptimizerSchema("gradient descent with momentum beta1 (Polyak 1964)", ("beta1",)),
}


def _hparam(name: str, help: str, default: Any, low: float = 0, high: float = FLOAT) -> Key:
    return Key(f"hp.{name}", float, help, default, low, high)


# Traced numbers. A config reads those of its choices (READ_BY) and must not contain
# others.
HPARAMS = (
    _hparam("lr", "Learning rate, the peak of the schedule.", REQUIRED),
    _hparam("lr_g", "Learning rate of the generator.", REQUIRED),
    _hparam("lr_d", "Learning rate of the discriminator.", REQUIRED),
    _hparam(
        "beta1", "Decay of the mean of gradients, or the momentum of sgd.", 0.9, high=BELOW_ONE
    ),
    _hparam("beta2", "Decay of the mean of squared gradients.", 0.999, high=BELOW_ONE),
    _hparam("weight_decay", "Decoupled weight decay of kernels and embeddings.", 0.01),
    _hparam("grad_clip", "Maximum global norm of the gradients; 0: no limit.", 0.0),
    _hparam(
        "ema_decay",
        "Decay of the averaged weights of a generator, or of a codebook's counts and sums.",
        REQUIRED,
        high=BELOW_ONE,
    ),
    _hparam("smoothing", "One-sided label smoothing of a GAN (Salimans et al. 2016).", 0.0, high=1),
    _hparam("auxiliary", "Weight of the cross-entropy of the classes.", 1.0),
    _hparam("beta", "Weight of the KL divergence (Higgins et al. 2017).", 1.0),
    _hparam("free_bits", "KL divergence per latent that is not penalized, in nats.", REQUIRED),
    _hparam("penalty", "Weight of config.penalty.", REQUIRED),
    _hparam("sigma", "Standard deviation of the likelihood gaussian.", REQUIRED, ABOVE_ZERO),
    _hparam("commitment", "Weight beta of van den Oord et al. 2017, eq. 3.", 0.25),
    _hparam(
        "restart",
        "Share of the uniform count below which a code is reset; 0: only if its count is 0.",
        0.0,
        high=1,
    ),
    *(
        _hparam(
            name,
            "Bound of the weights." if name == "weight_clipping" else f"Weight of {name}.",
            REGULARIZER_WEIGHTS.get(name, 10.0),
        )
        for name in REGULARIZERS
    ),
)
DEFAULTS = {key.name.removeprefix("hp."): key.default for key in HPARAMS}
