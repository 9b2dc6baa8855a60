"""How the trials of a group run together: all at once or one after another, and how
many at a time.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from aigc_jax.core import config as configs
from aigc_jax.core.mesh import mesh_of_trials
from aigc_jax.data.dataset import Dataset
from aigc_jax.training.feature_extractors import extractor
from aigc_jax.training.programs import Programs
from aigc_jax.utils import documents
from aigc_jax.utils.errors import require

PROBE_SECONDS = 0.3  # of each route
WORTH = 10.0  # seconds of training from which on a second route is tried
FILLED = 0.8  # of the memory that a program may take


def memory() -> int | None:
    """Bytes that a device's programs may use together, or None where nobody says."""
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


def needs(programs: Programs) -> int:
    """Bytes of the compiled training program: states, data and what it computes with,
    where its devices share one memory of all.
    """
    found = programs.train.result().memory_analysis()
    each = (
        found.temp_size_in_bytes
        + found.argument_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
    )
    return each * (programs.mesh.size if jax.default_backend() == "cpu" else 1)


def fitting(make: Callable[..., Programs], each: int, most: int | None) -> Programs:
    """Programs of the route vmap whose chunk of the trials `each` device has fits into
    the memory, halved as often as it takes.
    """
    chunk = 0
    while True:
        programs = make(route="vmap", chunk=chunk)
        programs.begin_training()
        if most is None or needs(programs) <= FILLED * most or chunk == 1:
            return programs
        chunk = -(-(chunk or each) // 2)


def seconds_a_step(programs: Programs, given: Sequence[ConfigDict], steps: int) -> float:
    """Of all trials together, on the real step: the best of a few calls, after one that
    warms up; of one, where so many steps are far from worth a second route.
    """
    states, best, n = programs.init(given), math.inf, 1
    programs.train.result()  # compiling is no part of it
    begun = time.perf_counter()
    while True:
        before = time.perf_counter()
        states, metrics = programs.train(states, programs.data(states, 0), np.int32(n))
        jax.block_until_ready((states, metrics))
        now = time.perf_counter()
        warm, best = best == math.inf, min(best, (now - before) / n)
        if not warm and (now - begun > PROBE_SECONDS or steps * best < WORTH / 2):
            return best
        n = min(2 * n, programs.capacity)


def decide(
    given: Sequence[ConfigDict], config: ConfigDict, dataset: Dataset, count: int, route: str
) -> tuple[Programs, dict]:
    """The programs of the faster route, or of the one that is asked for, and the plan.

    A second route is compiled and timed only where the training by the first takes
    WORTH seconds: it could not pay otherwise. The first is "map" where devices divide
    the trials, which is then mostly the faster one on CPUs, else "vmap".
    """
    mesh = mesh_of_trials(config.run.mesh, configs.RUN["mesh"], count, config.batch_size)
    make, most = partial(Programs, config, dataset, count, mesh, extractor=extractor), memory()
    builders = dict(
        map=lambda: make(route="map"),
        vmap=lambda: fitting(make, -(-count // mesh.shape["trial"]), most),
    )
    order = (
        ["map"]
        if count == 1
        else [route]
        if route != "auto"
        else ["map", "vmap"]
        if mesh.shape["trial"] > 1
        else ["vmap", "map"]
    )
    found, seconds = {}, {}
    for name in order:
        programs = found[name] = builders[name]()
        if len(order) == 1:
            break
        programs.start_as(next(iter(found.values())))
        programs.begin()
        seconds[name] = round(seconds_a_step(programs, given, config.steps), 6)
        if config.steps * seconds[name] < WORTH:
            break
    taken = min(found, key=lambda name: seconds.get(name, 0))
    figures = dict(bytes=dict(program=needs(found["vmap"]), there=most)) if "vmap" in found else {}
    return found[taken], dict(
        route=taken, chunk=found[taken].chunk, devices=mesh.shape["trial"], seconds_a_step=seconds
    ) | figures


def planned(
    folder: Path,
    members: list[str],
    given: Sequence[ConfigDict],
    route: str = "auto",
    halve: bool = False,
) -> Callable[[ConfigDict, Dataset, int], Programs]:
    """What makes a group's programs for `train`: by its plan, or decided now."""

    def make(config, dataset, count):
        plan = documents.read(folder / "plan.json")
        if plan is None:
            programs, plan = decide(given, config, dataset, count, route)
            documents.write(folder / "plan.json", dict(members=members) | plan)
            return programs
        require(plan["members"] == members, f"{folder / 'plan.json'} is of other members")
        if halve and plan["route"] == "vmap":
            chunk = -(-(plan["chunk"] or -(-count // plan["devices"])) // 2)
            plan |= dict(chunk=chunk, halved=[*plan.get("halved", []), plan["chunk"]])
            documents.write(folder / "plan.json", plan)
        mesh = mesh_of_trials(
            config.run.mesh, configs.RUN["mesh"], plan["devices"], config.batch_size
        )
        return Programs(
            config,
            dataset,
            count,
            mesh,
            route=plan["route"],
            chunk=plan["chunk"],
            extractor=extractor,
        )

    return make
