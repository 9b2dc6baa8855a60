"""aigc_jax: generative models in JAX, from a config to a run directory.

    run = aigc_jax.load("runs/gan")       # a finished or unfinished run
    run.sample(8); run.evaluate(); run.rows(); run.config; run.state
"""

__version__ = "0.1.0"


def load(workdir, checkpoint="latest"):
    """The `Run` in a work directory (see `aigc_jax.run.load`)."""
    from aigc_jax import run  # jax is imported late, so that flags set before it still count

    return run.load(workdir, checkpoint)
