"""Small runs and sweeps that several tests train and compare."""

import time

import jax
import numpy as np
import pytest
from tiny_configs import METHODS, dataset, resolved, tiny

from aigc_jax import methods
from aigc_jax.core.distributed import StopSignal
from aigc_jax.core.durations import duration_to_steps
from aigc_jax.core.mesh import make_mesh
from aigc_jax.data.dataset import hash_arrays_and_splits
from aigc_jax.sweeps.sweep import Sweep
from aigc_jax.sweeps.trials import make_trials
from aigc_jax.training import config as configs
from aigc_jax.training import config_identity
from aigc_jax.training import train as training
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.programs import Programs
from aigc_jax.training.serialization import digest_leaves

# Module scope orders tests by method, so that the tests of a method share its programs.
every_method = pytest.mark.parametrize("name", METHODS, scope="module")
SHORT = {"steps": 16, "metrics": (), "num_metric_samples": 8}


def trials(config, n):
    """n configs that differ in seeds and learning rates."""
    name = "lr_d" if "lr_d" in config.hp else "lr"
    return [
        configs.override(config, {"seed": i, f"hp.{name}": config.hp[name] * (1 + i)})
        for i in range(n)
    ]


_programs = {}
# Programs that tests share. Each takes hundreds of memory mappings, of which a Linux
# process may have 65,530.
MAX_PROGRAMS = 24


def compile_programs(config, count, **more):
    """The programs for trials that differ in seed and hp only, compiled once for
    consecutive tests.
    """
    static = {
        k: v
        for k, v in config_identity.identity_leaves(config).items()
        if k != "seed" and not k.startswith("hp.")
    }
    layout = [
        config.run[name]
        for name in ("fsdp", "sequence_parallel", "parallel", "data_placement", "log_norms")
    ]
    key = (str(static), str(layout), count, str(more), jax.config.jax_enable_x64)
    return _cached(key, lambda: Programs(resolved(config), dataset(config), count, **more))


def _cached(key, make):
    if key not in _programs:
        if len(_programs) >= MAX_PROGRAMS:
            del _programs[next(iter(_programs))]
        _programs[key] = make()
    return _programs[key]


def shared_programs(config, dataset, count, mesh=None, **more):
    """The programs of `train` or of a loaded run, compiled once for consecutive runs in
    this process that differ in seed and hp only.
    """
    static = {
        name: None if name.startswith("hp.") else value
        for name, value in configs.flatten_config(config).items()
        if name != "seed"
    }
    mesh = make_mesh(config.run.mesh) if mesh is None else mesh
    key = (
        str(static),
        hash_arrays_and_splits(dataset),
        count,
        mesh,
        str(more),
        jax.config.jax_enable_x64,
    )
    return _cached(key, lambda: Programs(config, dataset, count, mesh, **more))


def train_steps(config, trial_configs, calls=(12,), **more):
    """The programs, the states of the trials after calls of these lengths, and the
    metrics of all steps on the host.
    """
    programs = compile_programs(config, len(trial_configs), **more)
    states, parts, step = programs.init(trial_configs), [], 0
    for n in calls:
        states, metrics = programs.train(states, step, n)
        step += n
        parts.append({k: np.asarray(v)[:, :n] for k, v in metrics.items()})
    all_metrics = {k: np.concatenate([m[k] for m in parts], axis=1) for k in parts[0]}
    return programs, states, all_metrics


def close(a, b, tolerance):
    """Assert that leaves agree, relative to the largest value of each leaf."""
    for name in a:
        scale = max(np.abs(b[name]).max(), 1e-3) if b[name].dtype.kind == "f" else 0
        assert np.abs(a[name].astype(np.float64) - b[name]).max() <= tolerance * scale, name


def train(
    config, path, group=None, until=None, make=shared_programs, profile=(), report=None, **more
):
    """Train one config in a directory, or several as one program, and return the list
    of STATUS documents. until: a duration to stop after; make: builds the programs.
    """
    config_list = config if isinstance(config, list) else [config]
    paths = path if isinstance(path, list) else [path]
    dataset, ready = training.load_and_resolve(config_list)
    with StopSignal() as stop, training.open_trials(ready, paths, dataset, **more) as trials:
        stop_at = until and duration_to_steps(
            until, "until", dataset.spec.n_train, methods.examples_per_step(config_list[0])
        )
        programs = make(trials[0].config, dataset, len(trials))
        options = training.Options(stop_at, None, profile, report or (lambda line: None))
        return training.train(programs, trials, group or paths[0], stop, options)


def run_state(path):
    """The results that exact resumption reproduces: leaves of the last checkpoint, rows
    and samples.
    """
    with Checkpoints(path / "checkpoints") as checkpoints:
        state, best, meta = checkpoints.read_newest_valid(pytest.fail)
    samples = {p.name: p.read_bytes() for p in sorted((path / "samples").glob("*.png"))}
    # not `files`, whose names differ between two saves of one state
    meta = {k: meta[k] for k in ("step", "best", "failed")}
    return (
        digest_leaves(state),
        digest_leaves(best),
        meta,
        (path / "rows.jsonl").read_bytes(),
        samples,
    )


def without_dropout(name):
    """Overrides without dropout, whose mask depends on how a batch is split."""
    return dict(model__dropout=0.0) if "dropout" in tiny(name).get("model", {}) else {}


def newest(path):
    return max(
        (int(p.name) for p in (path / "checkpoints").glob("*") if p.name.isdecimal()), default=0
    )


def wait_until(process, condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"the process ended first:\n{process.stderr.read()}"
        assert time.monotonic() < end
        time.sleep(0.001)


def make_sweep(path, overrides, name="vae", extra=None, **more):
    """A sweep directory with untrained trials and groups."""
    it = Sweep(path)
    it.add_trials(make_trials(configs.override(tiny(name), SHORT | more), overrides), "test", extra)
    return it
