"""aigc_jax: generative models in JAX, from a config to a run directory.

run = aigc_jax.train("gan_digits", "runs/gan", {"hp.lr_g": 1e-4})
run.sample(8); run.evaluate(); run.rows(); run.config; run.state

sweep = aigc_jax.sweep("vae_digits", {"hp.lr": [1e-4, 1e-3]}, seeds=8, workdir="runs/s")
sweep.rows(); sweep.run(lr=1e-3, seed=0); sweep.table(); sweep.figure()

aigc_jax.load("runs/gan")             # an existing run or sweep, finished or not
"""

from typing import TYPE_CHECKING

from aigc_jax.utils.lazy import make_lazy_getattr

if TYPE_CHECKING:
    from aigc_jax.inference.run import Run
    from aigc_jax.inference.train import train
    from aigc_jax.sweeps.api import Sweep, load, sweep
    from aigc_jax.utils.errors import UserError

__version__ = "0.2.0.dev0"
__all__ = ["Run", "Sweep", "UserError", "__version__", "load", "sweep", "train"]

__getattr__ = make_lazy_getattr(
    __name__,
    {
        "Run": "aigc_jax.inference.run",
        "Sweep": "aigc_jax.sweeps.api",
        "UserError": "aigc_jax.utils.errors",
        "load": "aigc_jax.sweeps.api",
        "sweep": "aigc_jax.sweeps.api",
        "train": "aigc_jax.inference.train",
    },
)


def __dir__():
    return sorted({*globals(), *__all__})
