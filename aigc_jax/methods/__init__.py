"""Methods: what a GAN, a VAE, a language model is, as a `core.Method`. One file each, one line each in the table."""

from aigc_jax.errors import choose, require
from aigc_jax.methods import classifier, gan, lm, mlm, seq2seq, vae, vqvae

# config.method -> a module with make(resolved config, spec) -> Method and examples(config) -> training examples a step
METHODS = {"gan": gan, "vae": vae, "vqvae": vqvae, "lm": lm, "seq2seq": seq2seq, "mlm": mlm, "classifier": classifier}


def make(config, spec):
    """The Method that a resolved config describes, for data of the given spec."""
    require(config.method == "lm" or not config.lora.rank,
            f"config.lora.rank = {config.lora.rank} is for config.method = 'lm', not {config.method!r}")
    return choose(METHODS, config.method, "config.method").make(config, spec)


def examples(config) -> int:
    """How many training examples one step of the config's method takes."""
    return choose(METHODS, config.method, "config.method").examples(config)
