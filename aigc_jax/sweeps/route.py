"""The choice of how one program runs the trials of a group: all at once (vmap), in
chunks, or one after another (map).
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from aigc_jax.core.mesh import make_trials_mesh
from aigc_jax.data.dataset import Dataset
from aigc_jax.training.memory import query_available_bytes
from aigc_jax.training.programs import Programs
from aigc_jax.training.schema import MESH
from aigc_jax.utils import documents
from aigc_jax.utils.errors import require

PROBE_SECONDS = 0.3  # of timing each route
MIN_TUNING_SECONDS = 10.0  # shortest training for which a second route is timed
MAX_MEMORY_FRACTION = 0.8  # of the available memory that a program may use


def training_program_bytes(programs: Programs) -> int:  # on CPU the sum over devices
    """Return the memory of the compiled training program in bytes: states, data and
    temporary arrays, summed over devices that share one memory (CPU).
    """
    stats = programs.training.memory_stats()
    each = (
        stats.temp_size_in_bytes
        + stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes
    )
    return each * (programs.mesh.size if jax.default_backend() == "cpu" else 1)


def build_largest_fitting(
    build: Callable[..., Programs], trials_per_device: int, available_bytes: int | None
) -> Programs:  # of the route vmap
    """Return programs of the route vmap that fit into memory: each device runs all its
    trials at once, or in chunks, which are halved until the program fits or a chunk has
    one trial.

    Args:
      build: (route=, chunk=) -> Programs.
      trials_per_device: number of trials of a device.
      available_bytes: memory in bytes; programs may use MAX_MEMORY_FRACTION. None:
        unlimited.
    """
    chunk = 0
    while True:
        programs = build(route="vmap", chunk=chunk)
        programs.start_compiling_training()
        fits = (
            available_bytes is None
            or training_program_bytes(programs) <= MAX_MEMORY_FRACTION * available_bytes
        )
        if fits or chunk == 1:
            return programs
        chunk = -(-(chunk or trials_per_device) // 2)


def measure_step_seconds(
    programs: Programs, trial_configs: Sequence[ConfigDict], training_steps: int
) -> float:  # of all trials together
    """Return the seconds per training step of all trials: the minimum over calls of 1,
    2, 4, ... steps for PROBE_SECONDS, at least a warm-up call and one further call.

    Args:
      programs: programs whose training program is being compiled.
      trial_configs: one config per trial.
      training_steps: number of steps of the training; if they are far too few for
        timing a second route, only two calls are made.
    """
    states, best, n = programs.init(trial_configs), math.inf, 1
    programs.training.wait_for_executable()  # exclude compilation from the timing
    begun = time.perf_counter()
    while True:
        before = time.perf_counter()
        states, metrics = programs.train(states, 0, n)
        jax.block_until_ready((states, metrics))
        now = time.perf_counter()
        warm, best = best == math.inf, min(best, (now - before) / n)
        enough = now - begun > PROBE_SECONDS or training_steps * best < MIN_TUNING_SECONDS / 2
        if not warm and enough:
            return best
        n = min(2 * n, programs.max_call_steps(0))


def make_trial_mesh(config: ConfigDict, num_trials: int) -> Mesh:
    """Return the config's mesh, with a trial axis for `num_trials` trials."""
    return make_trials_mesh(config.run.mesh, MESH, num_trials, config.batch_size)


def choose_route(
    trial_configs: Sequence[ConfigDict], dataset: Dataset, requested_route: str
) -> tuple[Programs, dict]:  # the programs, and the plan
    """Return the programs of the faster route, or of the requested route, and the plan.

    A second route is compiled and timed only if training by the first route takes at
    least MIN_TUNING_SECONDS; otherwise timing could not pay off. The first route is
    "map" if the trials are divided among devices, where it is mostly faster on CPUs,
    else "vmap".

    Args:
      trial_configs: one config per trial.
      dataset: the data set of all trials.
      requested_route: "vmap", "map" or "auto"; a single trial always has "map".

    Returns:
      The programs, and the entries of plan.json (`sweeps.group`) except `members`.
    """
    config, count = trial_configs[0], len(trial_configs)
    mesh, available = make_trial_mesh(config, count), query_available_bytes()
    build = partial(Programs, config, dataset, count, mesh)
    builders = dict(
        map=lambda: build(route="map"),
        vmap=lambda: build_largest_fitting(build, -(-count // mesh.shape["trial"]), available),
    )
    order = ["map", "vmap"] if mesh.shape["trial"] > 1 else ["vmap", "map"]
    if count == 1 or requested_route != "auto":
        order = ["map" if count == 1 else requested_route]
    built, seconds = {}, {}
    for name in order:
        programs = built[name] = builders[name]()
        if len(order) == 1:
            break
        programs.reuse_init_program(next(iter(built.values())))
        programs.start_compiling_training()
        seconds[name] = round(measure_step_seconds(programs, trial_configs, config.steps), 6)
        if config.steps * seconds[name] < MIN_TUNING_SECONDS:
            break
    chosen = min(built, key=lambda name: seconds.get(name, 0))
    plan = dict(
        route=chosen,
        chunk=built[chosen].chunk,
        devices=mesh.shape["trial"],
        seconds_a_step=seconds,
    )
    if "vmap" in built:
        plan["bytes"] = dict(program=training_program_bytes(built["vmap"]), there=available)
    return built[chosen], plan


def build_planned_programs(
    folder: Path,
    trial_names: list[str],
    trial_configs: Sequence[ConfigDict],
    dataset: Dataset,
    requested_route: str = "auto",
    halve_chunk: bool = False,
) -> Programs:  # by folder/plan.json, written if missing
    """Return a group's programs according to its plan.json, which is written if it does
    not exist.

    Args:
      folder: the directory of plan.json.
      trial_names: the names of the trials.
      trial_configs: one config per trial.
      dataset: the data set of all trials.
      requested_route: as in `choose_route`; no effect on an existing plan.
      halve_chunk: halve an existing plan's number of trials at once, because they did
        not fit; no effect on the route "map".

    Raises:
      UserError: the plan is that of other trials.
    """
    config, count = trial_configs[0], len(trial_configs)
    plan = documents.read(folder / "plan.json")
    if plan is None:
        programs, plan = choose_route(trial_configs, dataset, requested_route)
        documents.write(folder / "plan.json", dict(members=trial_names) | plan)
        return programs
    require(plan["members"] == trial_names, f"{folder / 'plan.json'} belongs to other members")
    if halve_chunk and plan["route"] == "vmap":
        chunk = -(-(plan["chunk"] or -(-count // plan["devices"])) // 2)
        plan |= dict(chunk=chunk, halved=[*plan.get("halved", []), plan["chunk"]])
        documents.write(folder / "plan.json", plan)
    mesh = make_trial_mesh(config, plan["devices"])
    return Programs(config, dataset, count, mesh, route=plan["route"], chunk=plan["chunk"])
