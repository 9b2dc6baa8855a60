"""Optimizers: formulas, hyperparameters, and every optimizer with every method."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_configs import dataset, resolved, tiny

from aigc_jax import methods
from aigc_jax.methods import optimizers
from aigc_jax.methods.gan_penalties import REGULARIZERS
from aigc_jax.methods.hparams import DEFAULTS
from aigc_jax.methods.schema import READ_BY
from aigc_jax.sweeps.trials import make_trials
from aigc_jax.training import config as configs
from aigc_jax.training import config_files, config_identity
from aigc_jax.utils.errors import UserError

GRADS = [dict(kernel=[3e-5, -2.0], bias=[0.5, 0.0]), dict(kernel=[-1e-4, 0.25], bias=[-1.0, 0.0])]
START = dict(kernel=[1.5, -0.5], bias=[0.1, 2.0])


def steps_of(rule, lr, hp):
    """START after two steps in float64; `rule(g, memory, t, hp)` -> (step, memory)."""
    w = {name: np.array(x) for name, x in START.items()}
    memory = {name: (0.0, 0.0) for name in w}
    for t, grads in enumerate(GRADS, 1):
        g = {name: np.array(x) for name, x in grads.items()}
        norm = np.sqrt(sum((x**2).sum() for x in g.values()))
        if hp.get("grad_clip"):
            g = {name: x * min(1, hp["grad_clip"] / norm) for name, x in g.items()}
        for name in w:
            direction, memory[name] = rule(g[name], memory[name], t, hp)
            decay = hp.get("weight_decay", 0) * w[name] if name == "kernel" else 0
            w[name] = w[name] - lr * (direction + decay)
    return w


def numpy_adam(eps):
    def rule(g, memory, t, hp):
        m = hp["beta1"] * memory[0] + (1 - hp["beta1"]) * g
        v = hp["beta2"] * memory[1] + (1 - hp["beta2"]) * g**2
        return m / (1 - hp["beta1"] ** t) / (np.sqrt(v / (1 - hp["beta2"] ** t)) + eps), (m, v)

    return rule


def numpy_adagrad(g, memory, t, hp):
    s = memory[0] + g**2
    return np.where(s > 0, g / np.sqrt(s + 1e-7), 0), (s, 0)


def numpy_rmsprop(g, memory, t, hp):
    v = hp["beta2"] * memory[0] + (1 - hp["beta2"]) * g**2
    return g / np.sqrt(v + 1e-8), (v, 0)


def numpy_sgd(g, memory, t, hp):
    m = hp["beta1"] * memory[0] + g
    return m, (m, 0)


FORMULAS = {
    "adam": numpy_adam(1e-8),
    "adam_1e-4": numpy_adam(1e-4),
    "adamw": numpy_adam(1e-8),
    "adagrad": numpy_adagrad,
    "rmsprop": numpy_rmsprop,
    "sgd": numpy_sgd,
}


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_two_optimizer_steps_match_numpy(name):
    make, names = optimizers.OPTIMIZERS[name]
    with jax.enable_x64(True):
        for change in (
            {},
            dict(beta1=0.5),
            dict(beta2=0.9),
            dict(weight_decay=0.3),
            dict(grad_clip=0.7),
            dict(grad_clip=0.0, beta1=0.0),
        ):
            hp = {
                k: v
                for k, v in (
                    dict(beta1=0.9, beta2=0.99, weight_decay=0.01, grad_clip=5.0) | change
                ).items()
                if k in names
            }
            params = jax.tree.map(
                lambda x: jnp.array(x, jnp.float64), START, is_leaf=lambda x: isinstance(x, list)
            )
            traced = {k: jnp.float64(v) for k, v in hp.items()}
            state = make(0.1, traced).init(params)
            for grads in GRADS:
                grads = jax.tree.map(
                    lambda x: jnp.array(x, jnp.float64),
                    grads,
                    is_leaf=lambda x: isinstance(x, list),
                )
                params, state = optimizers.apply_gradients(make(0.1, traced), grads, state, params)
            want = steps_of(FORMULAS[name], 0.1, hp)
            for key, value in want.items():
                np.testing.assert_allclose(
                    params[key], value, rtol=1e-12, atol=1e-14, err_msg=f"{name} {hp} {key}"
                )


def test_zero_clip_leaves_gradients_bitwise_unchanged():
    params = dict(kernel=jnp.array([3.0, -2.0]), bias=jnp.array([0.3]))
    grads = dict(kernel=jnp.array([1e-3, 7.0]), bias=jnp.array([-0.1]))
    clipped = jax.jit(lambda most: optimizers.clip_by_global_norm(most).update(grads, None)[0])
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), clipped(0.0), grads))
    assert float(optax.tree.norm(clipped(1e-3))) == pytest.approx(1e-3)
    hp = dict(
        beta1=jnp.float32(0.9),
        beta2=jnp.float32(0.99),
        weight_decay=jnp.float32(0),
        grad_clip=jnp.float32(0),
    )

    @functools.partial(jax.jit, static_argnums=0)
    def one(name, params, grads, hp):
        rule = optimizers.OPTIMIZERS[name].make(0.1, hp)
        return optimizers.apply_gradients(rule, grads, rule.init(params), params)[0]

    adamw, adam = (one(name, params, grads, hp) for name in ("adamw", "adam"))
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), adamw, adam))


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_steps_with_another_optimizer(name):
    """Only the shapes of a step are evaluated: nothing is compiled."""
    config = resolved(tiny(name, optimizer="adam" if tiny(name).optimizer == "adamw" else "adamw"))
    method = methods.make_method(config, dataset(config).spec)
    hp = {k: jnp.float32(v) for k, v in configs.resolve_hparams(config).items()}
    assert set(optimizers.OPTIMIZERS[config.optimizer].hparams) <= set(hp)
    n = methods.examples_per_step(config)
    batch = dataset(config).take(dataset(config).arrays, np.arange(n)) | dict(index=np.arange(n))
    state = jax.eval_shape(method.init, jax.random.key(0), hp)
    after, _ = jax.eval_shape(method.step, state, batch)
    assert jax.tree.all(
        jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, after, state)
    )


def test_each_gan_network_has_its_own_learning_rate():
    config = resolved(tiny("gan", optimizer="adamw", hp__lr_g=0.0, hp__lr_d=1e-3))
    method, n = methods.make_method(config, dataset(config).spec), methods.examples_per_step(config)
    state = jax.jit(method.init)(
        jax.random.key(0), {k: jnp.float32(v) for k, v in configs.resolve_hparams(config).items()}
    )
    batch = dict(x=jnp.zeros((n, 8, 8, 1)), label=jnp.zeros(n, jnp.int32), index=jnp.arange(n))
    after = jax.jit(method.step)(state, batch)[0]
    same = jax.tree.map(lambda a, b: bool((a == b).all()), after.params, state.params)
    assert all(jax.tree.leaves(same["g"])) and not any(jax.tree.leaves(same["d"]["Dense_0"]))


def test_defaults_fill_missing_hyperparameters():
    config = tiny("vae", optimizer="adamw")
    assert configs.resolve_hparams(config) == dict(
        lr=1e-3, beta=1.0, beta1=0.9, beta2=0.999, weight_decay=0.01, grad_clip=0.0
    )
    assert configs.resolve_hparams(tiny("vae", optimizer="sgd", hp__beta1=0.5)) == dict(
        lr=1e-3, beta=1.0, beta1=0.5
    )


def test_overriding_a_choice_drops_unused_hyperparameters_of_the_file():
    config = tiny("vae", optimizer="adagrad")
    assert set(config.hp) == {"lr", "beta"}
    configs.validate_config(config)
    assert (
        "auxiliary"
        not in configs.override(
            config_files.load("configs/cgan_mnist.py"), {"gan.condition": "projection"}
        ).hp
    )
    kept = tiny("vae", optimizer="adagrad", hp__beta1=0.5)
    with pytest.raises(
        UserError,
        match=r"config\.hp\.beta1 is not read by config\.method = 'vae' with "
        r"config\.optimizer = 'adagrad'",
    ):
        configs.validate_config(kept)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("vae", {"hp__weight_decay": 0.1}, "config.hp.weight_decay is not read by"),
        ("gan", {"hp__r1": 1.0}, "config.hp.r1 is not read by"),
        ("vae", {"optimizer": "adamx"}, "config.optimizer = 'adamx' is none of"),
        ("vae", {"likelihood": "gaussian", "binarize": "none"}, "config.hp.sigma is missing"),
        ("gan", {"hp__ema_decay": 1.5}, "config.hp.ema_decay = 1.5"),
        ("vqvae", {"hp__ema_decay": 1.0}, "config.hp.ema_decay = 1.0"),
        ("lm", {"hp__grad_clip": -1.0}, "config.hp.grad_clip = -1.0"),
        ("gan", {"hp__smoothing": 1.5}, "config.hp.smoothing = 1.5"),
    ],
)
def test_invalid_hyperparameters_are_refused(name, changes, message):
    with pytest.raises(UserError) as e:
        configs.validate_config(tiny(name, **changes))
    assert message in str(e.value) and "\n" not in str(e.value)


def test_optimizers_are_an_axis_of_a_sweep():
    trials = make_trials(tiny("vae"), [{"optimizer": name} for name in optimizers.OPTIMIZERS])
    assert {t.config.optimizer: set(t.config.hp) for t in trials}["adagrad"] == {"lr", "beta"}
    for t in trials:
        configs.validate_config(t.config)


def test_hyperparameter_defaults_are_exactly_those_that_are_read():
    read = {name for table in READ_BY.values() for names in table.values() for name in names}
    assert read == set(DEFAULTS)
    assert set(READ_BY["optimizer"]) == set(optimizers.OPTIMIZERS) and set(
        READ_BY["method"]
    ) == set(methods.METHODS)
    assert set(READ_BY["gan.regularizers"]) == set(REGULARIZERS)


def test_explicit_default_does_not_change_the_config_hash():
    assert config_identity.hash_identity(
        tiny("vae", hp__beta2=0.999)
    ) == config_identity.hash_identity(tiny("vae"))
    leaves = configs.flatten_config(tiny("vae", hp__beta1=0.9))
    names = leaves.keys() - {"hp.beta1", "hp.beta2"}
    bare = configs.nest_config({name: leaves[name] for name in names})
    assert len(names) == len(leaves) - 2
    assert config_identity.hash_identity(bare) == config_identity.hash_identity(tiny("vae"))
