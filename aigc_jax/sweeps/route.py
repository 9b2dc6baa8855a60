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

from aigc_jax.core import config as configs
from aigc_jax.core.mesh import mesh_of_trials
from aigc_jax.data.dataset import Dataset
from aigc_jax.training.programs import Programs
from aigc_jax.utils import documents
from aigc_jax.utils.errors import require

PROBE_SECONDS = 0.3  # of timing each route
MIN_TUNING_SECONDS = 10.0  # shortest training for which a second route is timed
MAX_MEMORY_FRACTION = 0.8  # of the available memory that a program may use


def available_bytes() -> int | None:
    """Return the memory limit of a device's programs, in bytes; None if unknown."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(
            1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")
        )
    except (OSError, StopIteration, ValueError):
        return None


def program_bytes(programs: Programs) -> int:
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


def largest_chunk(
    build: Callable[..., Programs], per_device: int, available: int | None
) -> Programs:
    """Return programs of the route vmap that fit into memory: each device runs all its
    trials at once, or in chunks, which are halved until the program fits.
    """
    chunk = 0
    while True:
        programs = build(route="vmap", chunk=chunk)
        programs.compile_training()
        fits = available is None or program_bytes(programs) <= MAX_MEMORY_FRACTION * available
        if fits or chunk == 1:
            return programs
        chunk = -(-(chunk or per_device) // 2)


def measure_step_seconds(programs: Programs, configs_: Sequence[ConfigDict], steps: int) -> float:
    """Return the seconds per training step of all trials: the minimum over a few calls
    after a warm-up call, or over one call if `steps` are far too few for timing a
    second route.
    """
    states, best, n = programs.init(configs_), math.inf, 1
    programs.training.result()  # exclude compilation from the timing
    begun = time.perf_counter()
    while True:
        before = time.perf_counter()
        states, metrics = programs.train(states, 0, n)
        jax.block_until_ready((states, metrics))
        now = time.perf_counter()
        warm, best = best == math.inf, min(best, (now - before) / n)
        enough = now - begun > PROBE_SECONDS or steps * best < MIN_TUNING_SECONDS / 2
        if not warm and enough:
            return best
        n = min(2 * n, programs.most_steps(0))


def trial_mesh(config: ConfigDict, num_trials: int) -> Mesh:
    """Return the config's mesh, with a trial axis for `num_trials` trials."""
    return mesh_of_trials(config.run.mesh, configs.RUN["mesh"], num_trials, config.batch_size)


def choose_route(
    configs_: Sequence[ConfigDict], dataset: Dataset, route: str
) -> tuple[Programs, dict]:
    """Return the programs of the faster route, or of the requested route, and the plan.

    A second route is compiled and timed only if training by the first route takes at
    least MIN_TUNING_SECONDS; otherwise timing could not pay off. The first route is
    "map" if the trials are divided among devices, where it is mostly faster on CPUs,
    else "vmap".
    """
    config, count = configs_[0], len(configs_)
    mesh, available = trial_mesh(config, count), available_bytes()
    build = partial(Programs, config, dataset, count, mesh)
    builders = dict(
        map=lambda: build(route="map"),
        vmap=lambda: largest_chunk(build, -(-count // mesh.shape["trial"]), available),
    )
    order = ["map", "vmap"] if mesh.shape["trial"] > 1 else ["vmap", "map"]
    if count == 1 or route != "auto":
        order = ["map" if count == 1 else route]
    built, seconds = {}, {}
    for name in order:
        programs = built[name] = builders[name]()
        if len(order) == 1:
            break
        programs.share_init(next(iter(built.values())))
        programs.compile()
        seconds[name] = round(measure_step_seconds(programs, configs_, config.steps), 6)
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
        plan["bytes"] = dict(program=program_bytes(built["vmap"]), there=available)
    return built[chosen], plan


def load_or_choose_route(
    folder: Path,
    members: list[str],
    configs_: Sequence[ConfigDict],
    dataset: Dataset,
    route: str = "auto",
    halve: bool = False,
) -> Programs:
    """Return a group's programs according to its plan.json, which is written if it does
    not exist.

    halve: halve the plan's number of trials at once, because they did not fit.
    """
    config, count = configs_[0], len(configs_)
    plan = documents.read(folder / "plan.json")
    if plan is None:
        programs, plan = choose_route(configs_, dataset, route)
        documents.write(folder / "plan.json", dict(members=members) | plan)
        return programs
    require(plan["members"] == members, f"{folder / 'plan.json'} belongs to other members")
    if halve and plan["route"] == "vmap":
        chunk = -(-(plan["chunk"] or -(-count // plan["devices"])) // 2)
        plan |= dict(chunk=chunk, halved=[*plan.get("halved", []), plan["chunk"]])
        documents.write(folder / "plan.json", plan)
    mesh = trial_mesh(config, plan["devices"])
    return Programs(config, dataset, count, mesh, route=plan["route"], chunk=plan["chunk"])
