"""Generative models and a classifier, each as a `core.method.Method`: one module and
one entry of METHODS per method.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from aigc_jax.core.gradients import mean_gradients
from aigc_jax.data.dataset import Spec
from aigc_jax.methods import classifier, gan, lm, mlm, seq2seq, vae, vqvae
from aigc_jax.utils.errors import choose, require

# config.method -> a module with make(resolved config, spec, gradients) -> Method and
# examples(config) -> training examples per step; optionally batch_coupling(config,
# devices) -> the config entry that makes the loss differ from a mean over examples (or
# over the devices' means), or ''
METHODS = {
    "gan": gan,
    "vae": vae,
    "vqvae": vqvae,
    "lm": lm,
    "seq2seq": seq2seq,
    "mlm": mlm,
    "classifier": classifier,
}


def make_method(config: ConfigDict, spec: Spec, gradients: Callable = mean_gradients):
    """Return the Method of a resolved config for data with this spec; `gradients`
    differentiates its losses, as `core.gradients.mean_gradients` does.
    """
    module, parts = choose(METHODS, config.method, "config.method"), config.grad_accumulation_steps
    require(
        parts > 0 and config.batch_size % parts == 0,
        f"config.grad_accumulation_steps = {parts} does not divide config.batch_size = "
        f"{config.batch_size}",
    )
    coupled = getattr(module, "batch_coupling", lambda config, devices=False: "")
    for divided, key, devices in (
        (parts > 1, f"grad_accumulation_steps = {parts}", False),
        (config.run.parallel == "pmap", "run.parallel = 'pmap'", True),
    ):
        reason = divided and coupled(config, devices)
        require(
            not reason,
            f"config.{key} needs a loss that is a mean over examples, and {reason} "
            "couples the examples of a batch",
        )
    return module.make(config, spec, gradients)


def examples_per_step(config: ConfigDict) -> int:
    """Return the number of training examples per step of the config's method."""
    return choose(METHODS, config.method, "config.method").examples(config)
