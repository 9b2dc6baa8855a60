"""Optimisers and schedules as functions of traced hyper-parameters: a learning rate is data, not code.

An optimiser is rebuilt from `state.hp` inside the traced step; only its state lives between steps.
"""

import jax
import jax.numpy as jnp
import optax

from aigc_jax.errors import choose, require


def constant(step, end, warmup):
    """1 after a linear warm-up."""
    return jnp.minimum(1.0, (step + 1) / max(warmup, 1))


def linear(step, end, warmup):
    """From 1 after the warm-up down to 0 at the end."""
    return constant(step, end, warmup) * jnp.clip((end - step) / max(end - warmup, 1), 0.0, 1.0)


def cosine(step, end, warmup):
    """Half a cosine from 1 after the warm-up to 0 at the end (Loshchilov & Hutter 2017, eq. 5)."""
    progress = jnp.clip((step - warmup) / max(end - warmup, 1), 0.0, 1.0)
    return constant(step, end, warmup) * 0.5 * (1 + jnp.cos(jnp.pi * progress))


# Multipliers of a traced peak rate: (step [], end, warmup) -> []. The end and the warm-up are Python numbers of steps.
SCHEDULES = {"constant": constant, "linear": linear, "cosine": cosine}
ENDLESS = ("constant",)  # those that do not depend on the end, so that a run may be extended

# (lr, hp) -> optax transformation; which hp each reads is written in it.
OPTIMIZERS = {
    "adam": lambda lr, hp: optax.adam(lr, b1=hp["beta1"], b2=hp["beta2"]),  # Kingma & Ba 2015
    "rmsprop": lambda lr, hp: optax.rmsprop(lr, decay=hp["beta2"]),
    "sgd": lambda lr, hp: optax.sgd(lr, momentum=hp["beta1"]),
}


def make(config):
    """`optimizer(lr, hp, step) -> optax transformation` of a config with `optimizer`, `schedule` and `steps`."""
    rule = choose(OPTIMIZERS, config.optimizer, "config.optimizer")
    schedule = choose(SCHEDULES, config.schedule.name, "config.schedule.name")
    end, warmup = config.steps, config.schedule.warmup
    require(warmup < end, f"config.schedule.warmup = {warmup} steps must be below config.steps = {end}")
    return lambda lr, hp, step: rule(lr * schedule(step, end, warmup), hp)


def apply(optimizer, grads, opt, params):
    """One update: (new params, new optimiser state)."""
    updates, opt = optimizer.update(grads, opt, params)
    return optax.apply_updates(params, updates), opt


def average(mean, new, decay, step):
    """Exponential moving average, leaf by leaf: d * mean + (1 - d) * new with d = min(decay, (1 + step) / (10 + step)), so that in
    short runs too the first, untrained weights are forgotten: after `step` steps it holds about the last tenth of them."""
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda m, n: (decay * m + (1 - decay) * n).astype(m.dtype), mean, new)
