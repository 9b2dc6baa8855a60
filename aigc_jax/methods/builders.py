"""The table of methods, and the construction of the method of a config."""

from collections.abc import Callable

from ml_collections import ConfigDict

from aigc_jax.core.gradients import mean_gradients
from aigc_jax.core.method import Method
from aigc_jax.data.dataset import Spec
from aigc_jax.methods import classifier, gan, lm, mlm, seq2seq, vae, vqvae
from aigc_jax.utils.errors import choose, require

# config.method -> a module with make(resolved config, spec, gradients) -> Method and
# examples_per_step(config) -> training examples per step; optionally
# find_batch_coupling(config, across_devices) -> the config entry that makes the loss
# differ from a mean over examples (or over the devices' means), or ''
METHODS = {
    "gan": gan,
    "vae": vae,
    "vqvae": vqvae,
    "lm": lm,
    "seq2seq": seq2seq,
    "mlm": mlm,
    "classifier": classifier,
}


def make_method(config: ConfigDict, spec: Spec, gradients: Callable = mean_gradients) -> Method:
    """Return the method of a config.

    Args:
      config: a resolved config of all its keys.
      spec: the properties of the data.
      gradients: differentiates the losses, with the arguments loss, params, batch, key
        and rows of `core.gradients.mean_gradients`, and its results.

    Raises:
      UserError: if the config is inconsistent, does not suit the data, or divides the
        batch of a loss that couples its examples.
    """
    module, parts = choose(METHODS, config.method, "config.method"), config.grad_accumulation_steps
    require(
        parts > 0 and config.batch_size % parts == 0,
        f"config.grad_accumulation_steps = {parts} does not divide config.batch_size = "
        f"{config.batch_size}",
    )
    coupled = getattr(module, "find_batch_coupling", lambda config, across_devices=False: "")
    for divided, key, across_devices in (
        (parts > 1, f"grad_accumulation_steps = {parts}", False),
        (config.run.parallel == "pmap", "run.parallel = 'pmap'", True),
    ):
        reason = divided and coupled(config, across_devices)
        require(
            not reason,
            f"config.{key} needs a loss that is a mean over examples, and {reason} "
            "couples the examples of a batch",
        )
    return module.make(config, spec, gradients)


def examples_per_step(config: ConfigDict) -> int:
    """Return the number of training examples per step of the config's method; raise a
    UserError if METHODS has no such method.
    """
    return choose(METHODS, config.method, "config.method").examples_per_step(config)
