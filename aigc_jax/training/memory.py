"""Out-of-memory errors of training as user errors, which name the config keys that
would reduce the memory of a training step, and by how much.

The plans of the changed configs are compiled by another process, as the memory of this
one is exhausted: `python -m aigc_jax.training.memory` reads a request from its standard
input and writes a JSON array of the changes and the bytes of a device for each plan.
"""

import contextlib
import functools
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from aigc_jax import methods
from aigc_jax.core import distributed
from aigc_jax.core.mesh import list_devices, make_mesh, make_trials_mesh
from aigc_jax.data.dataset import Dataset, Spec
from aigc_jax.data.pipelines import BLOCK_BYTES
from aigc_jax.training import config as configs
from aigc_jax.training import plan as plans
from aigc_jax.training.programs import Programs
from aigc_jax.training.schema import MESH
from aigc_jax.training.trial import Trial
from aigc_jax.utils.errors import UserError, mark_argument
from aigc_jax.utils.memory import (
    OutOfMemoryError,
    available_host_bytes,
    convert_memory_errors,
    describe_exhaustion,
    is_out_of_memory,
)
from aigc_jax.utils.quantities import format_si
from aigc_jax.utils.subprocesses import package_environment

PLAN_SECONDS = 45.0  # for the plans of all changes
LEAST_SAVING = 0.05  # fraction of the memory below which a change is not suggested
FACTORS = (2, 4, 8, 16)  # by which a batch may be divided
# Options that halve compile times and affect machine code alone (docs/LOG.md).
FAST_COMPILATION = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
CHUNK = "trials at once"  # a change of a group's program, not of a config key

Changes = dict[str, Any]  # {key: value}


def query_available_bytes(only_free: bool = False) -> int | None:  # None: unknown
    """Return the memory limit of a device's programs, in bytes; on a device without a
    limit, such as a CPU, the free memory of the host.

    Args:
      only_free: without what programs and arrays occupy.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" not in stats:
        return available_host_bytes()
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0) * only_free


# -- changes that reduce memory


def list_changes(
    config: ConfigDict, spec: Spec, mesh_shape: dict[str, int], num_trials: int, factor: int
) -> list[Changes]:
    """Return the changes of a config that may reduce the memory of a training step,
    in the order of their usual effect.

    Args:
      config: a resolved config.
      spec: of its data.
      mesh_shape: {axis: number of devices}.
      num_trials: of one program.
      factor: by which a batch is divided, at least.
    """
    parts, size, length = config.grad_accumulation_steps, config.batch_size, config.data.length
    more = next((n for n in range(parts * factor, size + 1) if size % n == 0), size)
    chunk = next(n for n in range(max(1, length // factor), 0, -1) if length % n == 0)
    scan = {} if config.get("model", {}).get("scan") else {"model.scan": True}
    smaller = {"float32": "bfloat16", "float64": "float32"}.get(config.precision, "")
    changes: list[Changes] = [
        {"run.data_placement": "host"},
        *([{"run.fsdp": True}] if mesh_shape["data"] > 1 else []),
        {"grad_accumulation_steps": more},
        {"model.remat": True} | scan,  # on CPUs remat has no effect outside of a scan
        {"batch_size": max(1, size * parts // more)},
        {"loss_chunk": chunk},
        {"optimizer_dtype": "bfloat16"},
        *([{"precision": smaller}] if smaller else []),
    ]
    return [change for change in changes if is_applicable(config, spec, num_trials, change)]


def is_applicable(config: ConfigDict, spec: Spec, num_trials: int, changes: Changes) -> bool:
    """Return whether a config allows changes, unless it has one of them already."""
    leaves = configs.flatten_config(config)
    try:
        changed = configs.override(config, changes)
        methods.make_method(changed, spec)
        configs.check_trials_per_program(changed, num_trials)
    except UserError:
        return False
    return all(leaves.get(key) != value for key, value in changes.items())


# -- plans, compiled by another process


class Planner:
    """Compiles the plans of the changes of a program on simulated devices.

    Args:
      request: the program as JSON, from `compile_plans`.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self.request, self.count = request, request["num_trials"]
        self.config = configs.from_json_dict(request["config"])
        self.dataset, size = plans.load_one_row_data(self.config)
        self.data_bytes, self.mesh = size or 0, make_mesh(request["mesh"])
        self.base = self.measure({}, request["chunk"])

    def measure(self, changes: Changes, chunk: int) -> dict[str, int]:
        """Return the memory of the program with changes, as `plan.measure_memory`."""
        config = plans.resolve_for_plan(configs.override(self.config, changes), self.dataset)
        options: dict[str, Any] = dict(route=self.request["route"], compiler=plans.QUICK)
        return plans.measure_memory(
            Programs(config, self.dataset, self.count, self.mesh, chunk=chunk, **options)
        )

    def choose_factor(self) -> int:
        """Return the least of FACTORS by which the temporaries of a step must be
        divided to fit into the available memory; the largest where none suffices.
        """
        available, total = self.request["available"], self.base["peak"] + self.data_bytes
        reduced = lambda factor: total - self.base["temporary"] * (1 - 1 / factor)
        return next((f for f in FACTORS if available and reduced(f) <= available), FACTORS[-1])

    def estimate_bytes(self, changes: Changes) -> int:  # of a device
        """Return the memory of the program with changes and of its data."""
        total, chunk = self.base["peak"] + self.data_bytes, self.request["chunk"]
        if not changes:
            return total
        if changes == {"run.data_placement": "host"}:  # instead, three blocks of batches
            return total - self.data_bytes + 3 * BLOCK_BYTES
        if changes == {"optimizer_dtype": "bfloat16"}:
            itemsize = {"float64": 8, "bfloat16_all": 2}.get(self.config.precision, 4)
            return total - self.base["opt"] * (itemsize - 2) // itemsize
        if CHUNK in changes:
            return self.measure({}, changes[CHUNK])["peak"] + self.data_bytes
        return self.measure(changes, chunk)["peak"] + self.data_bytes

    def iterate_estimates(self) -> Iterator[tuple[Changes, int | None]]:
        """Yield ({}, bytes) of the program, (changes, None) for all changes, and then
        (changes, bytes) of those that are valid.
        """
        yield {}, self.estimate_bytes({})
        halves = []
        at_once = self.request["chunk"] or -(-self.count // self.mesh.shape["trial"])
        if self.request["route"] == "vmap" and at_once > 1:
            halves = [{CHUNK: -(-at_once // 2)}]
        args = self.dataset.spec, dict(self.mesh.shape), self.count, self.choose_factor()
        changes = halves + list_changes(self.config, *args)
        yield from ((change, None) for change in changes)
        for change in changes:
            with contextlib.suppress(UserError):  # such as a batch that the mesh cannot divide
                yield change, self.estimate_bytes(change)


def compile_plans(
    config: ConfigDict, mesh: Mesh, num_trials: int, route: str, chunk: int
) -> list[tuple[Changes, int | None]]:  # bytes None: not compiled within PLAN_SECONDS
    """Return ({}, bytes of a device) of a program and (changes, bytes) of the changes
    that may reduce it, by another process; [] where it fails.

    Args:
      config: a resolved config of the trials.
      mesh: of the program.
      num_trials, route, chunk: of the program, as in `Programs`.
    """
    request = dict(
        config=configs.to_json_dict(config),
        mesh=dict(mesh.shape),
        num_trials=num_trials,
        route=route,
        chunk=chunk,
        available=query_available_bytes(),
    )
    devices = f"--xla_force_host_platform_device_count={math.prod(mesh.shape.values())}"
    settings = dict(JAX_PLATFORMS="cpu", XLA_FLAGS=f"{devices} {FAST_COMPILATION}")
    settings |= dict(JAX_ENABLE_X64="1") if config.precision == "float64" else {}
    try:
        out = subprocess.run(
            [sys.executable, "-m", "aigc_jax.training.memory"],
            input=json.dumps(request).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | package_environment() | settings,
            timeout=PLAN_SECONDS,
            check=False,
        ).stdout
    except subprocess.TimeoutExpired as e:
        out = e.stdout or b""
    except (OSError, MemoryError):  # no memory for another process
        return []
    lines = out[: out.rfind(b"\n") + 1].splitlines()
    last = {json.dumps(changes): (changes, size) for changes, size in map(json.loads, lines)}
    return list(last.values())


# -- messages


def describe_changes(changes: Changes) -> str:
    """Return changes as they are written in a config: "config.batch_size = 32"."""
    return " and ".join(
        f"{value} {CHUNK}, as a sweep retries," if key == CHUNK else f"config.{key} = {value!r}"
        for key, value in changes.items()
    )


def describe_options(options: list[tuple[Changes, int | None]]) -> str:
    """Return a description of changes that reduce the memory.

    Args:
      options: [(changes, bytes with them; None: unknown)].
    """
    by_kind: dict[bool, list[str]] = {True: [], False: []}
    for changes, size in options:
        resumes = all(key == CHUNK or key.startswith("run.") for key in changes)
        needed = "" if size is None else f" needs {format_si(size, 'B')}"
        by_kind[resumes].append(describe_changes(changes) + needed)
    parts = [f"to resume with less: {', '.join(by_kind[True])}"] if by_kind[True] else []
    if by_kind[False]:
        parts.append(
            f"to begin again ({mark_argument('restart')}, or another {mark_argument('workdir')}) "
            f"with less: {', '.join(by_kind[False])}"
        )
    return "; ".join(parts)


def describe_evaluation(config: ConfigDict) -> str:
    """Return the keys that bound the memory of evaluation and samples."""
    leaves = configs.flatten_config(config)
    names = ["num_metric_samples"] * bool(config.metrics) + ["nll_samples", "run.samples"]
    known = [f"config.{name} = {leaves[name]!r}" for name in names if name in leaves]
    return f"evaluation and samples need less with smaller {', '.join(known)}"


def explain_exhaustion(
    error: BaseException, config: ConfigDict, dataset: Dataset, num_trials: int, programs: Any
) -> str:
    """Return why training ran out of memory, and what reduces it.

    Args:
      error: an out-of-memory error.
      config: the resolved config of any of the trials.
      dataset: the data set of all trials.
      num_trials: of one program.
      programs: the `Programs`; None where the memory did not suffice to build them.
    """
    if programs is None:
        run, size = config.run, config.batch_size
        mesh = (
            make_mesh(run.mesh)
            if num_trials == 1
            else make_trials_mesh(run.mesh, MESH, num_trials, size)
        )
        route, chunk = "map" if num_trials == 1 else "vmap", 0
    else:
        mesh, route, chunk = programs.mesh, programs.route, programs.chunk
    parts = [describe_exhaustion(error, query_available_bytes(only_free=True))]
    primary = distributed.is_primary()
    estimates = compile_plans(config, mesh, num_trials, route, chunk) if primary else []
    if estimates:
        needed = estimates[0][1] or 0
        parts.append(f"a training step needs {format_si(needed, 'B')}")
        most = (1 - LEAST_SAVING) * needed
        estimates = [(c, size) for c, size in estimates[1:] if size is None or size <= most]
    else:
        changes = list_changes(config, dataset.spec, dict(mesh.shape), num_trials, FACTORS[1])
        estimates = [(c, None) for c in changes]
    # Device memory of CPUs is that of the host, where arrays in memory stay.
    in_memory = all(type(x) is np.ndarray for x in dataset.arrays.values())
    if jax.default_backend() == "cpu" and in_memory:
        estimates = [(c, size) for c, size in estimates if "run.data_placement" not in c]
    parts += [describe_options(estimates)] if estimates else []
    return "; ".join([*parts, describe_evaluation(config)])


def convert_inference_errors(subject: str, smaller: str) -> contextlib.AbstractContextManager:
    """Return a context that converts out-of-memory errors to user errors.

    Args:
      subject: the run.
      smaller: what would need less memory, such as fewer samples.
    """
    query = functools.partial(query_available_bytes, only_free=True)
    host = (
        "" if list_devices()[0].platform == "cpu" else ", and JAX_PLATFORMS=cpu the host's memory"
    )
    return convert_memory_errors(subject, f"{smaller} uses less{host}", query)


@contextlib.contextmanager
def convert_training_errors(
    trials: Sequence[Trial], dataset: Dataset, programs: Programs | None = None
) -> Iterator[None]:  # -> OutOfMemoryError
    """Convert out-of-memory errors to user errors, which are the reason in the status
    of every trial.

    Args:
      trials: the open trials of one program.
      dataset: their data set.
      programs: their programs; None before they are built.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as e:
        if not is_out_of_memory(e):
            raise
        reason = explain_exhaustion(e, trials[0].config, dataset, len(trials), programs)
        with contextlib.suppress(OSError):
            for t in trials:
                step = t.dir.read_status().get("step", 0)
                t.dir.write_status("failed: crashed", step, reason=str(UserError(reason)))
        raise OutOfMemoryError(f"{trials[0].dir.path}: {reason}") from e


def main() -> None:
    """Write the plans of the request on the standard input."""
    for changes, size in Planner(json.load(sys.stdin)).iterate_estimates():
        sys.stdout.write(json.dumps([changes, size]) + "\n")
        sys.stdout.flush()  # what is written before PLAN_SECONDS is used


if __name__ == "__main__":
    main()
