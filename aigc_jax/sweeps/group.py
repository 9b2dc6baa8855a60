"""One group of a sweep as one program: how its trials run together is decided once,
written down, and kept; halving stops the worst.

GROUP/plan.json, before the first step:
  route, chunk       as in `core.transforms.vectorize`: bytes depend on them, so every
                     resumption reads them
  members            the trials' names
  devices            that the trials were divided among
  seconds_a_step     of each route that was tried, for all trials together
  bytes              that the program of the route vmap needs, and that there are
"""

from collections.abc import Callable
from pathlib import Path

from aigc_jax.sweeps.engines.base import HELD, STOPPED
from aigc_jax.sweeps.route import planned
from aigc_jax.sweeps.sweep import Group
from aigc_jax.sweeps.trials import ROUTES
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.train import train
from aigc_jax.training.trial import Trial, part
from aigc_jax.utils import documents
from aigc_jax.utils.disk import disk_errors
from aigc_jax.utils.errors import UserError, choose, require
from aigc_jax.utils.locks import hold
from aigc_jax.utils.terminal import print_warning


def run(
    path: str | Path,
    route: str = "auto",
    halve: bool = False,
    download: bool = False,
    report: Callable[[str], None] | None = None,
) -> int:
    """Train a group of a sweep to its end; returns HELD where another process
    is at it.
    """
    choose(ROUTES, route, "route")
    group = Group(Path(path))
    given = group.configs()
    changes = [
        {key: [None, value] for key, value in m["overrides"].items()}
        for m in group.stored["members"]
    ]
    halving = group.stored.get("halving")

    def stage(folder, chosen, until=None, parent=None):
        folder.mkdir(exist_ok=True)
        pick = lambda things: [things[i] for i in chosen]
        make = planned(folder, pick(group.members), pick(given), route, halve)
        return train(
            pick(given),
            [d.path for d in pick(group.dirs)],
            group=folder,
            changes=pick(changes),
            make=make,
            until=until,
            parent=parent,
            download=download,
            report=report,
        )

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
    """Rung after rung: train to it, keep the best, resume them as a smaller program."""
    parent = None
    for number, rung in enumerate(halving["rungs"]):
        folder = group.path / f"rung_{number}"
        ended = documents.read(folder / "rung.json")
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
    """Who goes on from a rung: the best by the metric, what is not finite last, ties by
    name. The others are exported and stopped.
    """
    split, name = halving["metric"].split("/")
    newest = Checkpoints(folder / "checkpoints").newest(print_warning)
    if newest is None:
        raise UserError(f"{folder} has no good checkpoint, and its rung is not ranked yet")
    state, best, meta = newest
    step, sign = meta["step"], dict(min=1, max=-1)[halving["mode"]]
    scores = {}
    for i in chosen:
        found = [
            row for row in group.dirs[i].rows() if row["step"] == step and row["split"] == split
        ]
        failed = group.dirs[i].read_status().get("status", "").startswith("failed")
        require(
            failed or (found and name in found[-1]),
            f"halving: no row of step {step} has the metric {halving['metric']!r}; there are "
            + ", ".join(
                f"{split}/{k}" for k in (found[-1] if found else {}) if k not in ("step", "split")
            ),
        )
        value = None if failed else found[-1][name]
        scores[i] = (value is None, 0 if value is None else sign * value, group.members[i])
    ranked = sorted(chosen, key=scores.__getitem__)
    kept = ranked[: max(1, -(-len(chosen) // halving["factor"]))]
    for place, i in enumerate(chosen):
        if i not in kept and not scores[i][0]:
            trial = Trial(given[i], group.dirs[i], None, meta["best"][place])
            trial.export(step, part(state, place), part(best, place))
            group.dirs[i].status(
                "stopped", step, rank=ranked.index(i) + 1, of=len(ranked), best=trial.best
            )
    stopped = {group.members[i]: group.dirs[i].read_status() for i in chosen if i not in kept}
    ended = dict(step=step, kept=[group.members[i] for i in kept], stopped=stopped)
    documents.write(folder / "rung.json", ended)
    return ended
