"""Methods: what a GAN, a VAE, a language model is, as a `core.method.Method`. One file
each, one line each in the table.
"""

from aigc_jax.core.gradients import mean_gradients
from aigc_jax.methods import classifier, gan, lm, mlm, seq2seq, vae, vqvae
from aigc_jax.utils.errors import choose, require

# config.method -> a module with make(resolved config, spec, gradients) -> Method and
# examples(config) -> training examples a step; coupled(config, devices), where there is
# one, names what makes a loss no mean over examples, or over devices' means, or ''
METHODS = {
    "gan": gan,
    "vae": vae,
    "vqvae": vqvae,
    "lm": lm,
    "seq2seq": seq2seq,
    "mlm": mlm,
    "classifier": classifier,
}


def make(config, spec, gradients=mean_gradients):
    """The Method that a resolved config describes, for data of the given spec;
    `gradients` is how its losses are differentiated.
    """
    module, parts = choose(METHODS, config.method, "config.method"), config.accumulate
    require(
        parts > 0 and config.batch_size % parts == 0,
        f"config.accumulate = {parts} does not divide config.batch_size = {config.batch_size}",
    )
    coupled = getattr(module, "coupled", lambda config, devices=False: "")
    for divided, key, devices in (
        (parts > 1, f"accumulate = {parts}", False),
        (config.run.parallel == "pmap", "run.parallel = 'pmap'", True),
    ):
        reason = divided and coupled(config, devices)
        require(
            not reason,
            f"config.{key} needs a loss that is a mean over examples, and {reason} looks at "
            "all of a batch at once",
        )
    return module.make(config, spec, gradients)


def examples(config) -> int:
    """How many training examples one step of the config's method takes."""
    return choose(METHODS, config.method, "config.method").examples(config)
