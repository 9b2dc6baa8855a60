"""Batches read on the host equal those selected on the device: the same examples in the
same order, for any method, mesh and block size.
"""

import math

import jax
import numpy as np
import pytest
from runs import close, train, train_steps, trials, without_dropout
from tiny_configs import METHODS, dataset, resolved, tiny

from aigc_jax import methods
from aigc_jax.core.mesh import make_mesh
from aigc_jax.data import pipelines
from aigc_jax.data.dataset import hash_arrays_and_splits
from aigc_jax.inference import run as loads
from aigc_jax.inference.run import Run
from aigc_jax.sweeps.trials import group_trials, make_trials
from aigc_jax.training import config as configs
from aigc_jax.training.evaluation import Evaluator
from aigc_jax.training.programs import Programs
from aigc_jax.training.run_dir import RunDir
from aigc_jax.training.serialization import flatten_state
from aigc_jax.utils.errors import UserError

HOST = {"run.data_placement": "host"}


def set_block_size(monkeypatch, batches, config):
    """Sets the block size to a number of training batches."""
    mesh = make_mesh({})
    one = pipelines.FromHost(
        dataset(config), config.data, methods.examples_per_step(config), config.batch_size, mesh, 1
    ).train_reader.one
    monkeypatch.setattr(
        pipelines,
        "BLOCK_BYTES",
        batches * sum(math.prod(s.shape) * s.dtype.itemsize for s in one.values()),
    )


def check_host_batches(name, shape, monkeypatch):
    """Trains with blocks of five batches; calls end within blocks and at their ends."""
    with jax.enable_x64(True):
        config, mesh = tiny(name, precision="float64", **without_dropout(name)), make_mesh(shape)
        here = configs.override(config, HOST)
        set_block_size(monkeypatch, 5, resolved(config))
        programs, states, metrics = train_steps(config, [config], (12,), mesh=mesh)
        other, theirs, values = train_steps(here, [here], (5, 2, 3, 2), mesh=mesh, compiler={})
        assert other.feed.capacity == 5 and [
            other.feed.max_steps(step) for step in (0, 4, 5, 7)
        ] == [
            5,
            1,
            5,
            3,
        ]
        close(flatten_state(theirs), flatten_state(states), 1e-9)
        close(values, metrics, 1e-6)  # some metrics are float32
        found, wanted = (
            Evaluator(p).evaluate(s, "train", 16)[0]
            for p, s in ((other, theirs), (programs, states))
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
def test_host_and_device_batches_train_equally(name, shape, monkeypatch):
    check_host_batches(name, shape, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, shape",
    [
        *((name, {}) for name in ("gan", "lm", "lm_stream", "seq2seq")),
        *((name, dict(data=4)) for name in METHODS if name != "vae"),
    ],
    ids=str,
)
def test_host_and_device_batches_train_equally_for_every_method(name, shape, monkeypatch):
    check_host_batches(name, shape, monkeypatch)


class Watched:
    """An array that records which of its rows were read."""

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


def record_reads(config, batches, monkeypatch):
    set_block_size(monkeypatch, batches, config)
    data = dataset(config)
    arrays = {name: Watched(x) for name, x in data.arrays.items()}
    return data._replace(arrays=arrays), arrays["x"]


def test_host_feed_reads_only_the_current_and_next_blocks(monkeypatch):
    config = resolved(tiny("vae", **HOST))
    data, x = record_reads(config, 3, monkeypatch)
    mesh = make_mesh({})
    feed = pipelines.FromHost(data, config.data, 16, 16, mesh, 1024)
    key, other = (np.asarray(jax.random.key_data(jax.random.key(seed))) for seed in (0, 1))
    taken = pipelines.FromDevice(dataset(config), config.data, 16, 16, mesh, 1024)
    for step in (0, 1, 2, 3, 4, 7):
        batch = feed.train_batch(feed.train_arrays(key, step), jax.random.key(0), np.int32(step))
        wanted = taken.train_batch(taken.train_arrays(key, step), jax.random.key(0), np.int32(step))
        assert batch.keys() == wanted.keys()
        jax.tree.map(np.testing.assert_array_equal, batch, wanted)
    feed._pool.shutdown()
    assert [len(rows) for rows in x.read] == [3 * 16] * 4  # blocks 0 to 2, and one prefetched
    again = pipelines.FromHost(data, config.data, 16, 16, mesh, 1024)
    first, second = (again.train_arrays(k, 0)["batches"]["x"] for k in (key, other))
    assert np.abs(np.asarray(first) - np.asarray(second)).max() > 0.1


def test_each_process_reads_only_the_rows_of_its_devices(monkeypatch):
    """`read` reads only the shards of a batch that are addressable in this process."""
    config = resolved(tiny("vae", **HOST))
    data, x = record_reads(config, 2, monkeypatch)
    feed = pipelines.FromHost(data, config.data, 16, 16, make_mesh(dict(data=4)), 1024)
    monkeypatch.setattr(
        jax,
        "make_array_from_callback",
        lambda shape, sharding, mine: [
            mine((slice(None), slice(4 * i, 4 * i + 4))) for i in (1, 2)
        ],
    )
    rows = np.arange(32, dtype=np.int32).reshape(2, 16)
    parts = feed.eval_reader.read_block(rows)["x"]
    assert [part.shape[:2] for part in parts] == [(2, 4)] * 2
    assert sorted(np.concatenate(x.read).tolist()) == sorted(rows[:, 4:12].ravel().tolist())


def test_host_feed_of_a_group_requires_a_shared_order():
    config = tiny("vae", **HOST)
    with pytest.raises(
        UserError,
        match="config.run.data_placement = 'host' feeds the same batches to all trials of a group: "
        "config.data.order = 'trial' must be",
    ):
        Programs(resolved(config), dataset(config), 2)
    # The error precedes any training.
    with pytest.raises(
        UserError,
        match="config.run.data_placement = 'host' feeds the same batches to all trials of a group",
    ):
        group_trials(make_trials(config, [{"seed": 0}, {"seed": 1}]))
    with pytest.raises(
        UserError,
        match="config.run.data_placement = 'hots' is none of device, host; did you mean 'host'",
    ):
        Programs(resolved(tiny("vae", run__data_placement="hots")), dataset(config), 1)
    shared = tiny("vae", data__order="shared")
    here = configs.override(shared, HOST)
    mesh = make_mesh(dict(trial=2, data=2))
    wanted, found = (
        flatten_state(train_steps(c, trials(c, 2), (6,), mesh=mesh)[1]) for c in (shared, here)
    )
    close(found, wanted, 1e-4)


def test_pmap_trains_equally_on_host_batches():
    config = tiny("vae", run__parallel="pmap")
    here = configs.override(config, HOST)
    mesh = make_mesh(dict(data=4))
    wanted, found = (flatten_state(train_steps(c, [c], (6,), mesh=mesh)[1]) for c in (config, here))
    close(found, wanted, 1e-4)


def test_host_run_stopped_within_a_block_resumes_to_identical_files(tmp_path, monkeypatch):
    config = tiny("vae", **HOST)
    set_block_size(monkeypatch, 6, resolved(config))
    kept = {}

    def share_programs(config, dataset, *given, **more):
        """Shares compiled programs between runs, but no prefetched blocks."""
        key = config.run.data_placement, hash_arrays_and_splits(dataset)
        if key not in kept:
            kept[key] = Programs(config, dataset, *given, **more)
        elif config.run.data_placement == "host":
            kept[key].feed._coming = {}
        return kept[key]

    monkeypatch.setattr(loads, "Programs", share_programs)
    silent = dict(make=share_programs)
    train([config], [tmp_path / "whole"], **silent)
    train([config], [tmp_path / "cut"], until="16 steps", **silent)
    train([config], [tmp_path / "cut"], **silent)
    for name in ("rows.jsonl", "samples/step_00000032.png"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), (
            name
        )
    device = tmp_path / "device"
    train([tiny("vae")], [device], **silent)
    for row, other in zip(
        RunDir(tmp_path / "whole").read_rows(), RunDir(device).read_rows(), strict=True
    ):
        assert row.pop("split") == other.pop("split") and row == pytest.approx(other, rel=1e-3)
    host, there = Run(tmp_path / "cut"), Run(device)
    for what in ("prior", "reconstruction"):
        np.testing.assert_allclose(host.sample(5, what), there.sample(5, what), atol=1e-4)
    assert host.evaluate() == pytest.approx(there.evaluate(), rel=1e-4)
