"""Norms of gradients, updates and parameters in the rows of training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from runs import close, compile_programs, every_method, train_steps, trials, without_dropout
from tiny_configs import METHODS, methods_of, resolved, tiny

from aigc_jax.core.gradients import mean_gradients
from aigc_jax.core.mesh import make_mesh
from aigc_jax.core.method import TrainState
from aigc_jax.methods import optimizers, schedules
from aigc_jax.methods.norms import GROUPS, PREFIX, make_norms
from aigc_jax.methods.single_network import make_single_network_step
from aigc_jax.training import config as configs
from aigc_jax.training.schema import allowed_keys

KINDS = ("grad", "update", "param")


def with_norms(name, groups="module", **more):
    return tiny(name, run__log_norms=groups, **without_dropout(name), **more)


def norms_in(metrics):
    return {k: v for k, v in metrics.items() if k.startswith(PREFIX)}


def test_norms_of_a_quadratic_equal_the_formula():
    """The loss sum(a w^2) / 2 has the gradient a w; sgd changes w by -lr a w."""
    config = resolved(with_norms("vae", optimizer="sgd", schedule__name="constant"))
    w = {"q": {"kernel": np.array([[3.0, 4.0]])}, "p": {"a": np.full(4, 2.0), "b": np.ones(5)}}
    a, lr = 2.0, 0.5
    loss = lambda params, batch, key: (
        a * sum(jnp.sum(x**2) for x in jax.tree.leaves(params["net"])) / 2,
        {},
    )
    optimizer = optimizers.make_optimizer(config)
    step = make_single_network_step(
        lambda state, batch, key: (loss, batch), optimizer, mean_gradients
    )
    hp = dict(lr=lr, beta1=0.0)
    params = dict(net=jax.tree.map(jnp.asarray, w))
    opt = dict(net=optimizer(lr, hp, 0).init(params["net"]))
    state = TrainState(jnp.int32(0), jax.random.key(0), params, opt, {}, hp)
    _, metrics = jax.jit(step)(state, {"x": jnp.zeros(2)})
    rate = lr * float(schedules.SCHEDULES["constant"](0, 32, config.schedule.warmup))
    for group, norm in dict(q=5.0, p=np.sqrt(4 * 4 + 5)).items():
        assert float(metrics[f"norm/grad/{group}"]) == pytest.approx(a * norm, rel=1e-6)
        assert float(metrics[f"norm/update/{group}"]) == pytest.approx(rate * a * norm, rel=1e-5)
        after = abs(1 - rate * a) * norm
        assert float(metrics[f"norm/param/{group}"]) == pytest.approx(after, rel=1e-5, abs=1e-6)


@methods_of("vae", "gan")
def test_norms_of_every_method_equal_those_of_its_states(name):
    """Of the parameters and their last change, from the states before and after."""
    config = with_norms(name, "network")
    one = trials(config, 1)
    _, before, _ = train_steps(config, one, calls=(2,), mesh=make_mesh({}))
    before = jax.device_get(before.params)
    _, after, metrics = train_steps(config, one, calls=(2, 1), mesh=make_mesh({}))
    after, networks = jax.device_get(after.params), after.opt.keys()
    for network in networks:
        group = network if len(networks) > 1 else "net"
        change = jax.tree.map(np.subtract, after[network], before[network])
        for kind, tree in dict(param=after[network], update=change).items():
            value = metrics[f"norm/{kind}/{group}"][0, 2]
            # Of several updates of a critic, the norm is of the last.
            if kind == "param" or config.get("critic_steps", 1) == 1:
                assert value == pytest.approx(float(optax.tree.norm(tree)), rel=1e-4)
        assert metrics[f"norm/grad/{group}"][0, 2] > 0
    assert len(norms_in(metrics)) == 3 * len(networks)


@methods_of("vae", "gan")
def test_modules_partition_each_network(name):
    """The squares of the norms of a network's modules add up to that of the network."""
    parts = norms_in(train_steps(with_norms(name), trials(tiny(name), 1), calls=(2,))[2])
    total = norms_in(train_steps(with_norms(name, "network"), trials(tiny(name), 1), calls=(2,))[2])
    for group, value in total.items():
        prefix = f"{group}/" if name.startswith("gan") else group.rpartition("/")[0] + "/"
        squares = [v**2 for k, v in parts.items() if k.startswith(prefix)]
        np.testing.assert_allclose(np.sqrt(sum(squares)), value, rtol=1e-5)


@methods_of("vae", "gan")
def test_norms_of_a_group_equal_those_of_single_runs(name):
    config = with_norms(name)
    pair = trials(config, 2)
    both = norms_in(train_steps(config, pair, mesh=make_mesh({}))[2])
    for i, one in enumerate(pair):
        alone = norms_in(train_steps(config, [one], mesh=make_mesh({}))[2])
        assert alone.keys() == both.keys() and alone
        for key, value in alone.items():
            np.testing.assert_allclose(both[key][i], value[0], rtol=2e-3, err_msg=key)


@pytest.mark.parametrize(
    "mesh, more",
    [
        (dict(data=4, model=2), {"run.fsdp": True}),
        (dict(trial=2, data=2, model=2), {"run.fsdp": True, "run.sequence_parallel": True}),
        (dict(data=4), {"run.parallel": "pmap"}),
    ],
    ids=str,
)
@methods_of("lm")
def test_norms_of_sharded_parameters_equal_one_device(name, mesh, more):
    with jax.enable_x64(True):
        config = configs.override(with_norms(name, precision="float64"), more)
        single = with_norms(name, precision="float64")
        sharded = train_steps(config, trials(config, 2), mesh=make_mesh(mesh))[2]
        whole = train_steps(single, trials(single, 2), mesh=make_mesh({}))[2]
        assert len(norms_in(whole)) > 3
        close(norms_in(sharded), norms_in(whole), 1e-9)


def test_norms_leave_losses_and_states_unchanged():
    config = tiny("gan")
    pair = trials(config, 1)
    _, plain, metrics = train_steps(config, pair)
    assert not norms_in(metrics)
    _, states, more = train_steps(with_norms("gan"), pair)
    close({k: more[k] for k in metrics}, metrics, 1e-5)
    for a, b in zip(jax.tree.leaves(plain.params), jax.tree.leaves(states.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_program_without_norms_computes_none(monkeypatch):
    """The lowered program is that of a step without any measurement."""
    lower = lambda programs: programs.training.jitted.lower(
        programs.layout.padded_shapes(programs.shapes), programs.feed.training, np.int32(0)
    ).as_text()
    config = tiny("gan")
    plain = lower(compile_programs(config, 1))
    measured = lower(compile_programs(with_norms("gan"), 1))
    monkeypatch.setattr(optimizers.norms, "make_norms", lambda config: lambda *args: {})
    assert plain == lower(compile_programs(config, 1, capacity=1024)) != measured


def test_norms_of_narrow_parameters_are_in_float32():
    config = with_norms("vae", precision="bfloat16_all")
    w = {"p": jnp.full(4096, 1 / 64, jnp.bfloat16)}
    norms = make_norms(config)(w, w, w)
    assert norms["norm/param/p"].dtype == jnp.float32
    assert float(norms["norm/param/p"]) == 1 and float(norms["norm/update/p"]) == 0


def test_every_group_is_a_value_of_the_key():
    assert set(GROUPS) == set(allowed_keys("vae", "mlp")["run.log_norms"].allowed)


@pytest.mark.slow
@every_method
def test_every_method_has_norms(name):
    metrics = norms_in(train_steps(with_norms(name), trials(tiny(name), 1), calls=(2,))[2])
    assert {k.split("/")[1] for k in metrics} == set(KINDS) and name in METHODS
    assert all(np.isfinite(v).all() for v in metrics.values())
