"""Generative models and a classifier, each as a `core.method.Method`: one module and
one entry of METHODS per method; `methods.schema` declares their names and keys.

Parameters of the same name have the same meaning in all methods:

config  the resolved config (`training.config.resolve_durations`)
spec    the `data.dataset.Spec` of the data; `shape` below is its shape of one example
state   the `core.method.TrainState` of one trial
params  its parameters, {network: tree}, as in `state.params`
hp      its traced hyper-parameters, {name without "hp.": []}
key     a key of `jax.random` for one use
index   integers [B] that number the examples; each keys the noise of its example
batch   arrays [B, ...]: "index" [B] always, and in part "x" [B, *shape], "label" [B],
        "tokens" [B, T + 1], "mask" [B, T] of tokens[:, 1:], "weight" [B] (evaluation),
        "class" [B] (samplers), "latents" [B, Z] (`core.method.Sampler.latents`)

`Method` describes init(key, hp), evaluate(state, batch), summarize(sums) and the
samplers (state, key, batch); `methods.single_network` describes make_loss(state, batch,
key).
"""

from typing import TYPE_CHECKING

from aigc_jax.utils.lazy import make_lazy_getattr

if TYPE_CHECKING:
    from aigc_jax.methods.builders import METHODS, examples_per_step, make_method

__all__ = ["METHODS", "examples_per_step", "make_method"]

__getattr__ = make_lazy_getattr(__name__, dict.fromkeys(__all__, "aigc_jax.methods.builders"))
