"""Results on any mesh equal those on one device up to rounding; arrays are sharded as
the rules specify; collectives of the compiled step are counted.
"""

import collections
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from runs import close, compile_programs, every_method, train, train_steps, trials, without_dropout
from tiny_configs import methods_of, tiny

from aigc_jax.core import axes as logical_axes
from aigc_jax.core import sharding
from aigc_jax.core.axes import logical_axis_rules
from aigc_jax.core.mesh import make_mesh, make_mesh_or_single
from aigc_jax.core.trees import format_key_path
from aigc_jax.methods import optimizers
from aigc_jax.training import config as configs
from aigc_jax.training.evaluation import Evaluator
from aigc_jax.training.run_dir import RunDir
from aigc_jax.training.serialization import flatten_state
from aigc_jax.utils.errors import UserError

MESHES = (
    dict(data=8),
    dict(data=4, model=2),
    dict(data=2, model=4),
    dict(trial=2, data=2, model=2),
)
ALL = {"run.fsdp": True, "run.sequence_parallel": True}
# Whether parameters are sharded over the data axis too (FSDP), and the mesh.
WAYS = ((True, MESHES[0]), (False, MESHES[0]), (True, MESHES[1]), (False, MESHES[2]))


@functools.cache
def reference(name):
    """Returns the states and metrics of two trials after 12 steps on one device, and a
    function that evaluates the first trial.
    """
    config = tiny(name, precision="float64", **without_dropout(name))
    programs, states, metrics = train_steps(config, trials(config, 2), mesh=make_mesh({}))
    return flatten_state(states) | metrics, functools.cache(
        lambda: Evaluator(programs).evaluate(states, "valid", 16)[0]
    )


def assert_equals_one_device(name, shape, evaluated=True, **more):
    with jax.enable_x64(True):
        config = configs.override(
            tiny(name, precision="float64", **without_dropout(name)), ALL | more
        )
        programs, states, metrics = train_steps(config, trials(config, 2), mesh=make_mesh(shape))
        assert all(
            len(x.sharding.device_set) == math.prod(shape.values())
            for x in jax.tree.leaves(states.params)
        )
        whole, values = reference(name)
        close(flatten_state(states), whole, 1e-9)
        close(metrics, whole, 1e-6)  # some metrics are float32
        for key, value in (
            Evaluator(programs).evaluate(states, "valid", 16)[0].items() if evaluated else ()
        ):
            assert value == pytest.approx(values()[key], rel=1e-9, abs=1e-9), key


@methods_of("vae")  # XLA once failed to partition "gan_conv", "vqvae" and "lm_stream"
def test_trial_data_and_model_parallelism_equal_one_device(name):
    assert_equals_one_device(name, MESHES[-1], evaluated=name in ("gan_conv", "lm_stream", "mlm"))


def test_data_and_model_parallelism_equal_one_device():
    assert_equals_one_device("lm", MESHES[1])


@pytest.mark.slow
@pytest.mark.parametrize("fsdp, shape", WAYS, ids=str)
@every_method
def test_every_method_on_every_mesh_equals_one_device(name, shape, fsdp):
    assert_equals_one_device(name, shape, **{"run.fsdp": fsdp})


@methods_of("vae")  # "lm_stream" needs rows, and "gan_conv" moments, of all devices
def test_pmap_equals_one_device(name):
    assert_equals_one_device(
        name,
        dict(data=4),
        evaluated=False,
        **{"run.parallel": "pmap", "run.fsdp": False, "run.sequence_parallel": False},
    )


def test_pmap_supports_data_parallelism_only():
    alone = {"run.parallel": "pmap"}
    for mesh in (dict(data=4, model=2), dict(trial=2)):
        with pytest.raises(
            UserError, match="config.run.parallel = 'pmap' supports only data parallelism"
        ):
            compile_programs(configs.override(tiny("vae"), alone), 2, mesh=make_mesh(mesh))
    with pytest.raises(
        UserError,
        match="config.run.parallel = 'pmap' needs a loss that is a mean over examples, and "
        "config.gan.unroll = 1",
    ):
        compile_programs(configs.override(tiny("gan", gan__unroll=1), alone), 1)
    with pytest.raises(
        UserError, match="config.run.parallel = 'pnap' is none of jit, pmap; did you mean 'pmap'"
    ):
        compile_programs(configs.override(tiny("vae"), {"run.parallel": "pnap"}), 1)


@methods_of("vae", "gan_conv", "gan_points")
def test_gradient_accumulation_equals_one_batch_or_is_refused(name):
    with jax.enable_x64(True):
        config = tiny(
            name,
            precision="float64",
            grad_accumulation_steps=4,
            batch_size=tiny(name).batch_size,
            **without_dropout(name),
        )
        coupled = dict(gan_points="config.gan.pack = 2", gan_conv="config.model.g.norm = 'batch'")
        if name in coupled:
            with pytest.raises(
                UserError,
                match="config.grad_accumulation_steps = 4 needs a loss that is a mean over "
                f"examples, and {coupled[name]}",
            ):
                compile_programs(config, 1)
        else:
            _, states, metrics = train_steps(config, trials(config, 2), mesh=make_mesh({}))
            close(flatten_state(states), reference(name)[0], 1e-9)
            close(metrics, reference(name)[0], 1e-6)


def test_microbatches_divide_the_batch_and_have_distinct_dropout():
    with pytest.raises(
        UserError, match="config.grad_accumulation_steps = 3 does not divide config.batch_size = 16"
    ):
        compile_programs(tiny("vae", grad_accumulation_steps=3), 1)
    couplings = (
        dict(loss="relativistic_average"),
        dict(gan__unroll=1),
        dict(gan__regularizers=("dragan",)),
    )
    for name, changes in (
        ("vae", dict(penalty="mmd", hp__penalty=1.0)),
        *(("gan", changes) for changes in couplings),
    ):
        config = tiny(name, grad_accumulation_steps=2, **changes)
        with pytest.raises(UserError, match="config.grad_accumulation_steps = 2 needs"):
            compile_programs(configs.override(config, {}), 1)
    config = tiny("lm", grad_accumulation_steps=2, model__dropout=0.5, hp__lr=0.0)
    losses = {
        train_steps(configs.override(config, {"grad_accumulation_steps": n}), [config], (1,))[2][
            "loss"
        ].item()
        for n in (1, 2)
    }
    assert len(losses) == 2  # other dropout masks


@pytest.mark.parametrize(
    "name",
    ["lm", "gan", *(pytest.param(name, marks=pytest.mark.slow) for name in ("seq2seq", "vqvae"))],
)
def test_shard_shapes_follow_the_sharding_rules(name):
    """Parameters, moments and averages have the shard shapes of their rules and FSDP;
    no array of two or more axes is replicated if an axis is divisible.
    """
    mesh = make_mesh(dict(data=4, model=2))
    config = configs.override(tiny(name), ALL)
    _, states, _ = train_steps(config, [config], (1,), mesh=mesh)
    divided = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(states):
        axes = sharding.leaf_mesh_axes(format_key_path(path), leaf.shape[1:], mesh.shape, True)
        promised = [
            1,
            *(n // mesh.shape.get(axis, 1) for n, axis in zip(leaf.shape[1:], axes, strict=True)),
        ]
        assert {s.data.shape for s in leaf.addressable_shards} == {tuple(promised)}, (
            format_key_path(path)
        )
        if leaf.ndim > 2 and sharding.match_rule(format_key_path(path)) != sharding.REPLICATED:
            assert "data" in axes or all(
                n % 4 for n, axis in zip(leaf.shape[1:], axes, strict=True) if axis is None
            ), format_key_path(path)
            divided += "data" in axes
    assert divided >= 12 or name == "vqvae"
    if name == "lm":
        flat = {
            format_key_path(path): leaf.sharding.spec
            for path, leaf in jax.tree_util.tree_leaves_with_path(states)
        }
        assert flat["params/net/embed/embedding"] == PartitionSpec("trial", "model", "data")
        assert flat["opt/net/1/0/nu/stack/layer_0/feed_forward/down/kernel"] == PartitionSpec(
            "trial", "model", "data"
        )
        assert flat["params/net/stack/layer_0/attention/qkv/kernel"] == PartitionSpec(
            "trial", "data", "model"
        )


def test_every_matrix_requires_a_sharding_rule():
    with pytest.raises(
        UserError, match=r"no rule of sharding.RULES names params/net/novel/kernel \(3, 4\)"
    ):
        sharding.leaf_mesh_axes(
            "params/net/novel/kernel", (3, 4), dict(trial=1, data=2, model=2), True
        )
    sizes = dict(trial=1, data=4, model=2)
    assert sharding.leaf_mesh_axes("params/net/novel/bias", (4,), sizes, True) == (None,)
    # scanned layers
    assert sharding.leaf_mesh_axes(
        "params/net/stack/blocks/feed_forward/up/kernel", (6, 8, 16), sizes, True
    ) == (None, "data", "model")
    # 15 is not divisible by 2
    assert sharding.leaf_mesh_axes(
        "params/net/stack/layer_0/feed_forward/up/kernel", (8, 15), sizes, False
    ) == (None, None)
    # paths of gradients
    for path in ("params/lora/head/kernel/a", "params/layer_0/recurrent_kernel/b"):
        assert sharding.leaf_mesh_axes(path, (8, 2), sizes, True) == ("data", None)
    scanned = compile_programs(
        tiny("lm", model__scan=True, model__layers=2, model__bias=True),
        1,
        mesh=make_mesh(dict(data=4, model=2)),
    )
    flat = {
        format_key_path(path): spec
        for path, spec in jax.tree_util.tree_leaves_with_path(
            scanned.layout.partition_specs(scanned.shapes)
        )
    }
    assert flat["params/net/stack/blocks/attention/out/bias"] == PartitionSpec("trial", None, None)
    assert flat["params/net/stack/blocks/attention/qkv/bias"] == PartitionSpec(
        "trial", None, "model"
    )


def collectives(name, shape, **changes):
    """Returns [(kind, shapes)] of the collectives in the compiled step."""
    config = tiny(name, **without_dropout(name), **changes)
    programs = compile_programs(config, 1, mesh=make_mesh(shape))
    programs.start_compiling_training()
    found = re.findall(
        r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)\(",
        programs.training.wait_for_executable().as_text(),
    )
    return [(kind, re.findall(r"\w+\[([\d,]*)\]", shapes)) for shapes, kind in found]


@pytest.mark.parametrize("name, reductions", [("vae", 1), ("lm", 1), ("gan", 2)])
def test_data_parallel_step_sends_one_all_reduce_per_update(name, reductions):
    assert [kind for kind, _ in collectives(name, dict(data=8))] == ["all-reduce"] * reductions


@pytest.mark.parametrize(
    "name, changes",
    [
        ("lm", dict(model__width=32)),
        (
            "gan",
            dict(batch_size=1024, latent_dim=128, model__g__widths=(256,), model__d__widths=(256,)),
        ),
    ],
)
def test_fsdp_gathers_parameters_once_per_pass_and_no_activations(name, changes):
    """The generator's pass gathers the discriminator's parameters again, because they
    have been updated since the discriminator's pass.
    """
    config = configs.override(tiny(name, **without_dropout(name), **changes), {"run.fsdp": True})
    programs = compile_programs(config, 1, mesh=make_mesh(dict(data=8)))
    matrices_of = lambda tree: collections.Counter(
        ",".join(map(str, x.shape[1:])) for x in jax.tree.leaves(tree) if x.ndim > 2
    )
    matrices, again = (
        matrices_of(programs.shapes.params),
        matrices_of(programs.shapes.params.get("d")),
    )
    found = collectives(name, dict(data=8), run__fsdp=True, **changes)
    assert (
        collections.Counter(
            shape for kind, shapes in found if kind == "all-gather" for shape in shapes
        )
        == matrices + again
    )
    assert {kind for kind, _ in found} == {"all-gather", "all-reduce"}


def gpus():
    try:
        return jax.devices("gpu")
    except RuntimeError:
        return []


@pytest.mark.skipif(len(gpus()) < 2, reason="fewer than two GPUs")
def test_fsdp_uses_reduce_scatter_on_gpus():
    programs = compile_programs(
        tiny("lm", run__fsdp=True, model__width=32), 1, mesh=make_mesh(dict(data=2), gpus()[:2])
    )
    programs.start_compiling_training()
    text = programs.training.wait_for_executable().as_text()
    matrices = sum(x.ndim > 2 for x in jax.tree.leaves(programs.shapes.params))
    assert (
        len(re.findall(r" reduce-scatter(?:-start)?\(", text)) > 0
        and len(re.findall(r" all-reduce(?:-start)?\(", text)) < matrices
    )


def test_logical_constraint_is_identity_without_axis_rules():
    x, heard = jnp.ones((2, 3)), []
    assert logical_axes.with_logical_constraint(x, "examples") is x
    with logical_axis_rules(lambda x, names: heard.append(names) or x):
        logical_axes.with_logical_constraint(x, "examples", None)
    assert logical_axes.with_logical_constraint(x, "examples") is x and heard == [
        ("examples", None)
    ]


def test_mesh_or_one_falls_back_to_one_device():
    assert make_mesh_or_single(dict(data=-1, model=2), 16, jax.devices()[:1]).size == 1
    assert make_mesh_or_single(dict(data=4), 6).size == 1  # the batch size is not divisible by 4
    assert dict(make_mesh_or_single(dict(data=-1, model=2), 16).shape) == dict(
        trial=1, data=4, model=2
    )


def test_clip_equals_optax_clip_by_global_norm():
    grads = {
        str(shape): jax.random.normal(jax.random.key(len(shape)), shape)
        for shape in ((5,), (64, 3), (1024, 2), (3, 32, 8))
    }
    for most in (0.1, 1e6):
        ours, theirs = (
            rule.update(grads, rule.init(grads))[0]
            for rule in (optimizers.clip_by_global_norm(most), optax.clip_by_global_norm(most))
        )
        for name in grads:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-6)


def test_mesh_fills_remaining_devices_and_refuses_invalid_shapes():
    assert dict(make_mesh(dict(data=-1, model=2)).shape) == dict(trial=1, data=4, model=2)
    for shape in (
        dict(data=3, model=4),
        dict(data=-1, model=-1),
        dict(data=-1, model=3),
        dict(model=0),
    ):
        with pytest.raises(UserError, match="config.run.mesh"):
            make_mesh(shape)


@pytest.mark.parametrize("name", ["gan", pytest.param("lm_stream", marks=pytest.mark.slow)])
def test_run_resumes_on_another_mesh(name, tmp_path):
    """Eight devices, then four, then one: data order and losses equal those of a run on
    a constant mesh.
    """

    def rows(folder):
        return [
            {k: v for k, v in row.items() if k != "split"}
            for row in RunDir(folder).read_rows()
            if row["split"] == "train"
        ]

    never = dict(best_metric="", run__eval_every="never", run__sample_every="never")
    given = tiny(name, steps=24, run__log_every="4 steps", run__save_every="8 steps", **never)
    train([given], [tmp_path / "still"])
    for until, shape in ((8, dict(data=4, model=2)), (16, dict(data=4)), (None, {})):
        moved = configs.override(
            given,
            {"run.fsdp": True}
            | {f"run.mesh.{axis}": n for axis, n in (dict(data=1) | shape).items()},
        )
        (status,) = train([moved], [tmp_path / "moved"], until=until)
    assert status["status"] == "done"
    a, b = rows(tmp_path / "still"), rows(tmp_path / "moved")
    assert [row["step"] for row in a] == [row["step"] for row in b] == [4, 8, 12, 16, 20, 24]
    for one, other in zip(a, b, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
