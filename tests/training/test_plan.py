"""Costs of a step that are counted from its program, compared with hand-counted
products and the usual formula for Transformers.
"""

import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT
from jax.sharding import NamedSharding, PartitionSpec
from runs import compile_programs, train
from tiny_configs import tiny

from aigc_jax.cli import main as cli
from aigc_jax.core.mesh import make_mesh
from aigc_jax.training import config as configs
from aigc_jax.training import config_files, costs, plan
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils.errors import UserError
from aigc_jax.utils.subprocesses import package_environment


def counted(f, *shapes):
    return costs.count_flops(jax.make_jaxpr(f)(*(jnp.zeros(s) for s in shapes)).jaxpr)


def test_matmul_flops_through_grad_scan_cond_vmap_and_remat():
    a, b = (8, 16), (16, 16)
    once = 2 * 8 * 16 * 16
    assert counted(jnp.dot, a, b) == once
    assert counted(jax.value_and_grad(lambda a, b: jnp.dot(a, b).sum(), (0, 1)), a, b) == 3 * once
    assert (
        counted(lambda a, b: jax.lax.scan(lambda x, _: (x @ b, None), a, None, 12)[0], a, b)
        == 12 * once
    )
    assert (
        counted(
            lambda a, b: jax.lax.scan(
                lambda x, _: jax.lax.scan(lambda y, _: (y @ b, None), x, None, 3), a, None, 4
            )[0],
            a,
            b,
        )
        == 12 * once
    )
    assert (
        counted(lambda a, b: jax.lax.cond(a.sum() > 0, lambda: a @ b @ b, lambda: a @ b), a, b)
        == 2 * once
    )
    assert counted(jax.vmap(jnp.dot), (5, *a), (5, *b)) == 5 * once
    assert counted(jax.jit(jax.checkpoint(jnp.dot)), a, b) == once


def test_each_convolution_gradient_costs_one_forward_pass():
    """A 3x3 kernel, stride 2, no padding: each of the 7x7 outputs multiplies 3x3x4
    values for each of 6 channels. Each of the two gradients costs the same.
    """
    conv = lambda x, k: jax.lax.conv_general_dilated(
        x, k, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x, k = (2, 15, 15, 4), (3, 3, 4, 6)
    once = 2 * (2 * 7 * 7 * 6) * (3 * 3 * 4)
    assert counted(conv, x, k) == once
    of_kernel = counted(jax.grad(lambda x, k: (conv(x, k) ** 2).sum(), 1), x, k)
    assert of_kernel == 2 * once
    of_both = counted(jax.grad(lambda x, k: (conv(x, k) ** 2).sum(), (0, 1)), x, k)
    # the input gradient also computes a border
    assert of_both == pytest.approx(3 * once, rel=0.2)


def test_host_data_use_no_device_memory():
    here, there = (
        plan.load_one_row_data(tiny("vae", run__data_placement=place))[1]
        for place in ("host", "device")
    )
    assert here == 0 and there > 1797 * 64


def test_collective_bytes_follow_ring_algorithms_and_loop_counts():
    mesh = make_mesh(dict(data=8))
    shard = functools.partial(
        jax.shard_map, mesh=mesh, in_specs=PartitionSpec("data"), check_vma=False
    )
    x = jax.device_put(np.ones((8, 1000), np.float32), NamedSharding(mesh, PartitionSpec("data")))
    sent = lambda f: costs.count_collective_bytes(jax.jit(f).lower(x).compile().as_text())
    whole = 4 * 1000
    assert sent(shard(lambda x: jax.lax.psum(x, "data"), out_specs=PartitionSpec())) == {
        "all-reduce": 2 * whole * 7 / 8
    }
    assert sent(shard(lambda x: jax.lax.all_gather(x, "data"), out_specs=PartitionSpec())) == {
        "all-gather": 8 * whole * 7 / 8
    }
    loop = lambda x: jax.lax.scan(
        lambda c, _: (jax.lax.ppermute(c + 1, "data", [(i, (i + 1) % 8) for i in range(8)]), None),
        x,
        None,
        5,
    )[0]
    assert sent(shard(loop, out_specs=PartitionSpec("data"))) == {"collective-permute": 5 * whole}
    assert sent(lambda x: x + 1) == {}


def small(**more):
    """Returns the config `gpt_base` with two layers."""
    config = config_files.load(ROOT / "configs/gpt_base.py")
    return configs.override(
        config,
        {"model.layers": 2, "model.dropout": 0.0, "batch_size": 8, "run.mesh.data": 1} | more,
    )


@functools.cache
def small_plan():
    return plan.make_plan(small())


def test_transformer_flops_match_6nd_plus_attention():
    """Each token costs 6 N + 12 L T d operations (Kaplan et al. 2020, section 2.1;
    Chowdhery et al. 2022, appendix B). N excludes the position embeddings.
    """
    config, estimate = small(), small_plan()
    model = config.model
    layers, width, length = model.layers, model.width, config.data.length
    numbers = 12 * layers * width**2 + 10_112 * width  # the padded vocabulary
    tokens = config.batch_size * length
    assert estimate.flops == pytest.approx(
        tokens * (6 * numbers + 12 * layers * length * width), rel=0.05
    )


def test_remat_costs_flops_and_saves_memory():
    little = {
        "model.layers": 2,
        "model.width": 256,
        "model.heads": 4,
        "model.kv_heads": 4,
        "model.context": 128,
        "data.length": 128,
        "data.vocabulary": 512,
        "batch_size": 16,
        "run.mesh.data": 1,
        "model.scan": True,
    }
    config = configs.override(config_files.load(ROOT / "configs/gpt2_124m.py"), little)
    none, all_, but_products = (
        plan.make_plan(configs.override(config, c))
        for c in ({"model.remat": False}, {}, {"model.remat_policy": "products"})
    )
    assert (
        none.flops < but_products.flops < 1.05 * none.flops
        and 1.2 * none.flops < all_.flops < 4 / 3 * none.flops
    )
    assert all_.temporary < but_products.temporary < none.temporary


def test_plan_divides_state_and_flops_by_the_mesh():
    one = small_plan()
    many = plan.make_plan(small(**{"run.mesh.data": 4, "run.mesh.model": 2, "run.fsdp": True}))
    assert (
        many.mesh == dict(trial=1, data=4, model=2)
        and many.parameters == one.parameters == one.params / 4
    )
    assert one.params / 8 < many.params < one.params / 7.9 and one.opt == pytest.approx(
        2 * one.params, rel=1e-3
    )
    assert (
        many.flops == one.flops // 8
        and one.collective_bytes == {}
        and many.collective_bytes["all-gather"] == pytest.approx(3 / 4 * one.params / 2, rel=0.15)
    )
    assert many.peak < 0.5 * one.peak
    h100 = costs.HARDWARE["h100"]
    assert one.step_seconds(h100)[0] == one.flops / 494.7e12 and one.step_seconds(h100)[2] == 0


def test_plan_command_prints_mesh_collectives_and_fit(capsys):
    words = (
        "plan",
        f"--config={ROOT / 'configs/gpt_base.py'}",
        "--devices=8",
        "--mesh=data:4,model:2",
        "--hardware=h100,tpu_v5e",
        "--config.run.fsdp=True",
        "--config.model.layers=1",
        "--config.model.width=192",
        "--config.precision=bfloat16",
    )
    assert cli.main(list(words)) == 0
    out = capsys.readouterr().out
    assert "trial 1 x data 4 x model 2" in out and "sent by all-gather" in out
    last = out.splitlines()[-1].split()
    assert last[:2] == ["TPU", "v5e"] and last[-1] == "yes"


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--hardware=h1000"], "--hardware = 'h1000' is none of"),
        (["--devices=0"], "--devices=0 must be positive"),
        (["--mesh=data=4"], "--mesh=data=4 must be like data:64,model:4"),
        (["--devices=8", "--mesh=data:16"], "needs 16 devices, but only 8 are available"),
        (["--mesh=rows:4"], "config.run.mesh.rows: no such key"),
    ],
)
def test_invalid_plan_flags_are_a_one_line_error(flags, message, capsys, monkeypatch):
    for name in ("XLA_FLAGS", "JAX_PLATFORMS"):  # set by the command, too late for this process
        monkeypatch.setenv(name, os.environ.get(name, ""))
    assert cli.main(["plan", f"--config={ROOT / 'configs/gpt_base.py'}", *flags]) == 1
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1, err


@pytest.mark.slow
def test_predicted_memory_is_within_ten_percent(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks/plan.py"), "--config=gpt_base"]
    # allocations of a user's process, without simulated devices
    plain = os.environ | package_environment() | {"XLA_FLAGS": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=plain)
    assert abs(float(done.stdout.split()[-1].strip("%"))) < 10, done.stdout


def test_profiled_steps_write_a_trace(tmp_path):
    train(tiny("vae"), tmp_path / "run", profile=(10, 12))
    assert list((tmp_path / "run/profile").rglob("*.xplane.pb")) and list(
        (tmp_path / "run/profile").rglob("perfetto_trace.json.gz")
    )


def test_profiling_past_the_last_step_is_a_user_error(tmp_path):
    with pytest.raises(
        UserError, match="^profile of the steps 30 to 40 ends after the run's 32 steps"
    ):
        train(tiny("vae"), tmp_path / "run", profile=(30, 40))


def test_unread_datasets_have_no_size_in_the_plan():
    assert small_plan().data is None and plan.make_plan(tiny("vae")).data > 1e5
    needs, _ = plan.make_plan_tables(small_plan(), ["h100"])
    assert "data set" not in str(needs)


def test_utilization_is_reported_for_known_devices(tmp_path, monkeypatch):
    peak = 1e9
    monkeypatch.setattr(costs, "peak_flops", lambda kind, precision: peak)
    train(tiny("vae"), tmp_path / "run")
    row = json.loads((RunDir(tmp_path / "run") / "timings.jsonl").read_text().splitlines()[-1])
    told = compile_programs(tiny("vae"), 1).step_flops * row["steps_per_s"] / peak
    assert row["utilization"] == pytest.approx(told, rel=1e-3, abs=1e-4) and told > 0
    monkeypatch.undo()
    assert (
        costs.peak_flops("NVIDIA H200", "bfloat16") == 989.4e12
        and costs.peak_flops("NVIDIA H200", "bfloat16_all") == 989.4e12
        and costs.peak_flops("NVIDIA H200", "float32") == 494.7e12
        and costs.peak_flops("NVIDIA H200", "float64") == 66.9e12
        and costs.peak_flops("TPU v5", "float64") == 0
        and costs.peak_flops("cpu", "float32") == 0
    )
