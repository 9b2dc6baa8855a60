"""One group of a sweep as one program: how its trials run together is decided once, written down, and kept; halving stops the worst.

GROUP/plan.json, before the first step:
  route, chunk       as in `core.vectorize`: bytes depend on them, so every resumption reads them
  members            the trials' names
  devices            that the trials were divided among
  seconds_a_step     of each route that was tried, for all trials together
  bytes              that the program of the route vmap needs, and that there are
"""

import math
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np

from aigc_jax import config as configs
from aigc_jax import sharding, stored
from aigc_jax.checkpoint import Checkpoints
from aigc_jax.errors import choose, require
from aigc_jax.extractors import extractor
from aigc_jax.jobs import HELD, STOPPED
from aigc_jax.locks import hold
from aigc_jax.programs import Programs
from aigc_jax.results import disk_errors
from aigc_jax.sweep import ROUTES, Group
from aigc_jax.terminal import print_warning
from aigc_jax.train import train
from aigc_jax.trial import Trial, part

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
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None


def needs(programs) -> int:
    """Bytes of the compiled training program: states, data and what it computes with, where its devices share one memory of all."""
    found = programs.train.result().memory_analysis()
    each = found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return each * (programs.mesh.size if jax.default_backend() == "cpu" else 1)


def fitting(make, each, most):
    """Programs of the route vmap whose chunk of the trials `each` device has fits into the memory, halved as often as it takes."""
    chunk = 0
    while True:
        programs = make(route="vmap", chunk=chunk)
        programs.begin_training()
        if most is None or needs(programs) <= FILLED * most or chunk == 1:
            return programs
        chunk = -(-(chunk or each) // 2)


def seconds_a_step(programs, given, steps) -> float:
    """Of all trials together, on the real step: the best of a few calls, after one that warms up; of one, where so many steps are far from worth
    a second route."""
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


def decide(given, config, dataset, count, route) -> tuple[Programs, dict]:
    """The programs of the faster route, or of the one that is asked for, and the plan.

    A second route is compiled and timed only where the training by the first takes WORTH seconds: it could not pay otherwise. The first is
    "map" where devices divide the trials, which is then mostly the faster one on CPUs, else "vmap".
    """
    mesh = sharding.mesh_of_trials(config.run.mesh, configs.RUN["mesh"], count, config.batch_size)
    make, most = partial(Programs, config, dataset, count, mesh, extractor=extractor), memory()
    builders = dict(map=lambda: make(route="map"), vmap=lambda: fitting(make, -(-count // mesh.shape["trial"]), most))
    order = ["map"] if count == 1 else [route] if route != "auto" else ["map", "vmap"] if mesh.shape["trial"] > 1 else ["vmap", "map"]
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
    return found[taken], dict(route=taken, chunk=found[taken].chunk, devices=mesh.shape["trial"], seconds_a_step=seconds) | figures


def planned(folder: Path, members, given, route="auto", halve=False):
    """What `train` calls to make the programs of a group: as its plan says, or as is decided now."""

    def make(config, dataset, count):
        plan = stored.read(folder / "plan.json")
        if plan is None:
            programs, plan = decide(given, config, dataset, count, route)
            stored.write(folder / "plan.json", dict(members=members) | plan)
            return programs
        require(plan["members"] == members, f"{folder / 'plan.json'} is of other members")
        if halve and plan["route"] == "vmap":
            chunk = -(-(plan["chunk"] or -(-count // plan["devices"])) // 2)
            plan |= dict(chunk=chunk, halved=[*plan.get("halved", []), plan["chunk"]])
            stored.write(folder / "plan.json", plan)
        mesh = sharding.mesh_of_trials(config.run.mesh, configs.RUN["mesh"], plan["devices"], config.batch_size)
        return Programs(config, dataset, count, mesh, route=plan["route"], chunk=plan["chunk"], extractor=extractor)

    return make


def run(path, route="auto", halve=False, download=False, report=None) -> int:
    """Train a group of a sweep to its end; returns HELD where another process is at it."""
    choose(ROUTES, route, "--route")
    group = Group(Path(path))
    given = group.configs()
    changes = [{key: [None, value] for key, value in m["overrides"].items()} for m in group.stored["members"]]
    halving = group.stored.get("halving")

    def stage(folder, chosen, until=None, parent=None):
        folder.mkdir(exist_ok=True)
        pick = lambda things: [things[i] for i in chosen]
        make = planned(folder, pick(group.members), pick(given), route, halve)
        return train(pick(given), [d.path for d in pick(group.dirs)], group=folder, changes=pick(changes), make=make, until=until,
                     parent=parent, download=download, report=report)

    with disk_errors(group.path), hold(group.path) as mine:
        if not mine:
            return HELD
        if group.finished():
            return 0
        everyone = list(range(len(given)))
        if halving is None:
            stage(group.path, everyone)
        else:
            _halve(group, halving, stage, everyone, given)
    return STOPPED if _preempted(group, everyone) else 0


def _halve(group, halving, stage, chosen, given):
    """Rung after rung: train to it, keep the best, go on with them as a smaller program."""
    parent = None
    for number, rung in enumerate(halving["rungs"]):
        folder = group.path / f"rung_{number}"
        ended = stored.read(folder / "rung.json")
        if ended is None:
            stage(folder, chosen, rung, parent)
            if not _alive(group, chosen) or _preempted(group, chosen):
                return
            ended = _rank(group, halving, folder, chosen, given)
        for i in chosen:
            status = ended["stopped"].get(group.members[i])
            if status and not group.dirs[i].read_status():  # a damaged STATUS.json is made anew
                group.dirs[i].write_json("STATUS.json", status)
        kept = [i for i in chosen if group.members[i] in ended["kept"]]
        parent, chosen = (folder, [chosen.index(i) for i in kept]), kept
    stage(group.path, chosen, None, parent)


def _alive(group, chosen):
    return any(not s.startswith("failed") for i, s in enumerate(group.statuses()) if i in chosen)


def _preempted(group, chosen):
    return any(s == "preempted" for i, s in enumerate(group.statuses()) if i in chosen)


def _rank(group, halving, folder, chosen, given):
    """Who goes on from a rung: the best by the metric, what is not finite last, ties by name. The others are exported and stopped."""
    split, name = halving["metric"].split("/")
    state, best, meta = Checkpoints(folder / "checkpoints").newest(print_warning)
    step, sign = meta["step"], dict(min=1, max=-1)[halving["mode"]]
    scores = {}
    for i in chosen:
        found = [row for row in group.dirs[i].rows() if row["step"] == step and row["split"] == split]
        failed = group.dirs[i].read_status().get("status", "").startswith("failed")
        require(failed or (found and name in found[-1]), f"halving: no row of step {step} has the metric {halving['metric']!r}; there are "
                + ", ".join(f"{split}/{k}" for k in (found[-1] if found else {}) if k not in ("step", "split")))
        value = None if failed else found[-1][name]
        scores[i] = (value is None, 0 if value is None else sign * value, group.members[i])
    ranked = sorted(chosen, key=scores.get)
    kept = ranked[: max(1, -(-len(chosen) // halving["factor"]))]
    for place, i in enumerate(chosen):
        if i not in kept and not scores[i][0]:
            trial = Trial(given[i], group.dirs[i], None, meta["best"][place])
            trial.export(step, part(state, place), part(best, place))
            group.dirs[i].status("stopped", step, rank=ranked.index(i) + 1, of=len(ranked), best=trial.best)
    stopped = {group.members[i]: group.dirs[i].read_status() for i in chosen if i not in kept}
    ended = dict(step=step, kept=[group.members[i] for i in kept], stopped=stopped)
    stored.write(folder / "rung.json", ended)
    return ended
