"""Batches from the host are those that a device takes by itself: the same examples in
the same order, for any method, mesh and block.
"""

import math

import jax
import numpy as np
import pytest
from runs import close, trained, trials, without_dropout
from tiny_configs import METHODS, dataset, resolved, tiny

from aigc_jax import methods
from aigc_jax.core import config as configs
from aigc_jax.core.mesh import make_mesh
from aigc_jax.data import pipelines
from aigc_jax.data.dataset import fingerprint
from aigc_jax.inference import run as loads
from aigc_jax.inference.run import Run
from aigc_jax.sweeps.trials import groups_of, trials_of
from aigc_jax.training.programs import Programs
from aigc_jax.training.run_dir import RunDir
from aigc_jax.training.serialization import flatten
from aigc_jax.training.train import train
from aigc_jax.utils.errors import UserError

HOST = {"run.data": "host"}


def blocks_of(monkeypatch, batches, config):
    """So many batches of training at once, by the size of one."""
    mesh = make_mesh({})
    one = pipelines.FromHost(
        dataset(config), config.data, methods.examples(config), config.batch_size, mesh, 1
    ).trained.one
    monkeypatch.setattr(
        pipelines,
        "BLOCK_BYTES",
        batches * sum(math.prod(s.shape) * s.dtype.itemsize for s in one.values()),
    )


def same_from_the_host(name, shape, monkeypatch):
    """In blocks of five, so that calls end at blocks' borders."""
    with jax.enable_x64(True):
        config, mesh = tiny(name, precision="float64", **without_dropout(name)), make_mesh(shape)
        here = configs.override(config, HOST)
        blocks_of(monkeypatch, 5, resolved(config))
        programs, states, metrics = trained(config, [config], (12,), mesh=mesh)
        other, theirs, values = trained(here, [here], (5, 2, 3, 2), mesh=mesh, compiler={})
        assert other.capacity == 5 and [other.feed.most(step) for step in (0, 4, 5, 7)] == [
            5,
            1,
            5,
            3,
        ]
        close(flatten(theirs), flatten(states), 1e-9)
        close(values, metrics, 1e-6)  # some are of float32
        found, wanted = (
            p.evaluate(s, "train", 16)[0] for p, s in ((other, theirs), (programs, states))
        )
        assert all(found[key] == pytest.approx(wanted[key], rel=1e-6, abs=1e-9) for key in wanted)
        what = (
            "reconstruction"
            if "reconstruction" in programs.method.samplers
            else next(iter(programs.method.samplers))
        )
        ours, wanted = (
            p.draw(s, what, 20, "valid") for p, s in ((other, theirs), (programs, states))
        )
        np.testing.assert_allclose(ours, wanted, atol=1e-6)


@pytest.mark.parametrize("name, shape", [("vae", dict(data=4))], ids=str)
def test_batches_from_the_host_equal_those_of_the_device(name, shape, monkeypatch):
    same_from_the_host(name, shape, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, shape",
    [
        *((name, {}) for name in ("gan", "lm", "lm_stream", "seq2seq")),
        *((name, dict(data=4)) for name in METHODS if name != "vae"),
    ],
    ids=str,
)
def test_batches_from_the_host_equal_those_of_the_device_for_every_method(name, shape, monkeypatch):
    same_from_the_host(name, shape, monkeypatch)


class Watched:
    """An array that remembers which of its rows were read."""

    def __init__(self, array):
        self.array, self.read = array, []

    def __getitem__(self, rows):
        assert isinstance(rows, np.ndarray), "read as a whole"
        self.read.append(rows)
        return self.array[rows]

    shape, dtype, __len__ = (
        property(lambda self: self.array.shape),
        property(lambda self: self.array.dtype),
        lambda self: len(self.array),
    )


def watched(config, batches, monkeypatch):
    blocks_of(monkeypatch, batches, config)
    data = dataset(config)
    arrays = {name: Watched(x) for name, x in data.arrays.items()}
    return data._replace(arrays=arrays), arrays["x"]


def test_only_the_rows_of_a_block_and_the_next_are_read_and_of_another_seed_others(monkeypatch):
    config = resolved(tiny("vae", **HOST))
    data, x = watched(config, 3, monkeypatch)
    mesh = make_mesh({})
    feed = pipelines.FromHost(data, config.data, 16, 16, mesh, 1024)
    key, other = (np.asarray(jax.random.key_data(jax.random.key(seed))) for seed in (0, 1))
    taken = pipelines.FromDevice(dataset(config), config.data, 16, 16, mesh, 1024)
    for step in (0, 1, 2, 3, 4, 7):
        batch = feed.source(feed.steps(key, step), jax.random.key(0), np.int32(step))
        wanted = taken.source(taken.steps(key, step), jax.random.key(0), np.int32(step))
        assert batch.keys() == wanted.keys()
        jax.tree.map(np.testing.assert_array_equal, batch, wanted)
    feed._pool.shutdown()
    assert [len(rows) for rows in x.read] == [3 * 16] * 4  # blocks 0 to 2, and the one after them
    again = pipelines.FromHost(data, config.data, 16, 16, mesh, 1024)
    first, second = (again.steps(k, 0)["batches"]["x"] for k in (key, other))
    assert np.abs(np.asarray(first) - np.asarray(second)).max() > 0.1


def test_each_process_reads_the_examples_of_its_own_devices(monkeypatch):
    """`read` is asked for the parts of a batch that this process's devices hold, and
    for no other.
    """
    config = resolved(tiny("vae", **HOST))
    data, x = watched(config, 2, monkeypatch)
    feed = pipelines.FromHost(data, config.data, 16, 16, make_mesh(dict(data=4)), 1024)
    monkeypatch.setattr(
        jax,
        "make_array_from_callback",
        lambda shape, sharding, mine: [
            mine((slice(None), slice(4 * i, 4 * i + 4))) for i in (1, 2)
        ],
    )
    rows = np.arange(32, dtype=np.int32).reshape(2, 16)
    parts = feed.looked.read(rows)["x"]
    assert [part.shape[:2] for part in parts] == [(2, 4)] * 2
    assert sorted(np.concatenate(x.read).tolist()) == sorted(rows[:, 4:12].ravel().tolist())


def test_a_group_from_the_host_shares_its_order():
    config = tiny("vae", **HOST)
    with pytest.raises(
        UserError,
        match="config.run.data = 'host' gives all trials of a group the same batches: "
        "config.data.order = 'trial' must be",
    ):
        Programs(resolved(config), dataset(config), 2)
    # before anything starts
    with pytest.raises(
        UserError, match="config.run.data = 'host' gives all trials of a group the same batches"
    ):
        groups_of(trials_of(config, [{"seed": 0}, {"seed": 1}]))
    with pytest.raises(
        UserError, match="config.run.data = 'hots' is none of device, host; did you mean 'host'"
    ):
        Programs(resolved(tiny("vae", run__data="hots")), dataset(config), 1)
    shared = tiny("vae", data__order="shared")
    here = configs.override(shared, HOST)
    mesh = make_mesh(dict(trial=2, data=2))
    wanted, found = (flatten(trained(c, trials(c, 2), (6,), mesh=mesh)[1]) for c in (shared, here))
    close(found, wanted, 1e-4)


def test_a_program_on_each_device_takes_batches_from_the_host():
    config = tiny("vae", run__parallel="pmap")
    here = configs.override(config, HOST)
    mesh = make_mesh(dict(data=4))
    wanted, found = (flatten(trained(c, [c], (6,), mesh=mesh)[1]) for c in (config, here))
    close(found, wanted, 1e-4)


def test_a_run_from_the_host_that_is_cut_off_within_a_block_goes_on_to_the_same_bytes(
    tmp_path, monkeypatch
):
    config = tiny("vae", **HOST)
    blocks_of(monkeypatch, 6, resolved(config))
    kept = {}

    def once(config, dataset, *given, **more):
        """Programs that runs share, but for blocks that are read or on their way."""
        key = config.run.data, fingerprint(dataset)
        if key not in kept:
            kept[key] = Programs(config, dataset, *given, **more)
        elif config.run.data == "host":
            kept[key].feed._coming = {}
        return kept[key]

    monkeypatch.setattr(loads, "Programs", once)
    silent = dict(report=lambda line: None, make=once)
    train([config], [tmp_path / "whole"], **silent)
    train([config], [tmp_path / "cut"], until="16 steps", **silent)
    train([config], [tmp_path / "cut"], **silent)
    for name in ("rows.jsonl", "samples/step_00000032.png"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), (
            name
        )
    device = tmp_path / "device"
    train([tiny("vae")], [device], **silent)
    for row, other in zip(RunDir(tmp_path / "whole").rows(), RunDir(device).rows(), strict=True):
        assert row.pop("split") == other.pop("split") and row == pytest.approx(other, rel=1e-3)
    host, there = Run(tmp_path / "cut"), Run(device)
    for what in ("prior", "reconstruction"):
        np.testing.assert_allclose(host.sample(5, what), there.sample(5, what), atol=1e-4)
    assert host.evaluate() == pytest.approx(there.evaluate(), rel=1e-4)
