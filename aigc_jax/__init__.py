"""aigc_jax: generative models in JAX, from a config to a run directory.

run = aigc_jax.train("gan_digits", "runs/gan", {"hp.lr_g": 1e-4})
run.sample(8); run.evaluate(); run.rows(); run.config; run.state

sweep = aigc_jax.sweep("vae_digits", {"hp.lr": [1e-4, 1e-3]}, seeds=8, workdir="runs/s")
sweep.rows(); sweep.run(lr=1e-3, seed=0); sweep.table(); sweep.figure()

aigc_jax.load("runs/gan")             # an existing run or sweep, finished or not
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aigc_jax.inference.run import Run
    from aigc_jax.inference.train import train
    from aigc_jax.sweeps.api import Sweep, load, sweep
    from aigc_jax.utils.errors import UserError

__version__ = "0.2.0.dev0"
__all__ = ["Run", "Sweep", "UserError", "__version__", "load", "sweep", "train"]

# Modules of the public names, imported on first use: importing jax takes seconds, and
# flags that are set before that import take effect.
_HOMES = {
    "Run": "aigc_jax.inference.run",
    "Sweep": "aigc_jax.sweeps.api",
    "UserError": "aigc_jax.utils.errors",
    "load": "aigc_jax.sweeps.api",
    "sweep": "aigc_jax.sweeps.api",
    "train": "aigc_jax.inference.train",
}


def __getattr__(name: str):
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(home), name)
    return found


def __dir__():
    return sorted({*globals(), *__all__})
