"""Sweeps as Python objects: what `aigc_jax.sweep` and `aigc_jax.load` do."""

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from aigc_jax.core import config as configs
from aigc_jax.sweeps import grid as grids
from aigc_jax.sweeps import plots, report
from aigc_jax.sweeps.engines import DEFAULT_SETTINGS
from aigc_jax.sweeps.evidence import Results
from aigc_jax.sweeps.request import carry_out, check_metric, finish, make_request
from aigc_jax.sweeps.sweep import Sweep as SweepDir
from aigc_jax.utils.errors import UserError, argument, check_type, listing, nearest, require
from aigc_jax.utils.terminal import print_warning

if TYPE_CHECKING:  # sweeps are started and looked at without jax
    from aigc_jax.inference.run import Run

SHOWN = 8  # trials that an error names


class Sweep:
    """A sweep on disk, finished or not.

    path      its directory
    module    the experiment, whose own table and figure are shown
    """

    def __init__(self, path: str | Path, module: ModuleType | None = None):
        self.dir, self.module = SweepDir(path), module
        self.dir.stored()  # a UserError where there is no sweep

    @property
    def path(self) -> Path:
        """The sweep's directory."""
        return self.dir.path

    def __repr__(self):
        return f"Sweep({str(self.path)!r}, {len(self.dir.stored()['trials'])} trials)"

    def rows(self, split: str | None = None) -> list[dict]:
        """All rows of all trials, or those of a split: {trial, the keys that vary,
        seed, step, split, values}; `pandas.DataFrame(sweep.rows())` is a table.
        """
        return [row for row in self.dir.rows() if split in (None, row["split"])]

    def trials(self) -> list[dict]:
        """Every trial: {trial, the keys that vary, seed, status}, in their order."""
        return self.dir.results().trials

    def names(self, overrides: Mapping | None = None, **keys) -> list[str]:
        """The trials that have these values: names({"hp.lr": 1e-3}) or names(lr=1e-3),
        where one key alone ends in `.lr`. Of no overrides, all trials.
        """
        found = self._configs()
        wanted = dict(overrides or {})
        for name, value in keys.items():
            wanted[_full_key(name, found.values())] = value
        out, errors = [], []
        for name, config in found.items():
            try:
                changed = configs.override(config, wanted)
            except UserError as e:  # a key or a value that its method does not know
                errors.append(e)
                continue
            if configs.hash_of(changed) == configs.hash_of(config):
                out.append(name)
        if found and len(errors) == len(found):
            raise errors[0]
        return out

    def runs(self, overrides: Mapping | None = None, checkpoint="latest", **keys) -> "list[Run]":
        """The trials that have these values, as in `names`, as runs."""
        return [self._load(name, checkpoint) for name in self.names(overrides, **keys)]

    def run(self, overrides: Mapping | None = None, checkpoint="latest", **keys) -> "Run":
        """The one trial that has these values: sweep.run(lr=1e-3, seed=0). A UserError
        where none has them or several do.
        """
        names = self.names(overrides, **keys)
        given = ", ".join(f"{k} = {v!r}" for k, v in (dict(overrides or {}) | keys).items())
        require(
            len(names) == 1,
            f"{len(names) or 'none'} of the {len(self._configs())} trials of {self.path} "
            f"{'has' if not names else 'have'} {given or 'any values'}: "
            + (f"{listing(names, SHOWN)}" if names else f"they vary {listing(self.dir.varied())}"),
        )
        return self._load(names[0], checkpoint)

    def table(self, metric: str = "") -> str:
        """A Markdown table of means over seeds, the experiment's own or the default, as
        in table.md. metric: "test/loss"; by default the experiment's, or config.best.
        """
        return report.table_of(self._results(metric), self.module, print_warning)

    def figure(self, metric: str = ""):
        """A matplotlib Figure of the metric over steps, the experiment's own or the
        default, as in figure.png.
        """
        found = self._results(metric)
        draw, layout = report.figure_of(found, self.module, print_warning)
        figure = plots.draw_figure(draw, **layout)
        figure._repr_png_ = lambda: _to_png(figure)  # a notebook shows it
        return figure

    def _load(self, name, checkpoint):
        from aigc_jax.inference.run import load

        return load(self.dir.trial(name).path, checkpoint)

    def _results(self, metric) -> Results:
        found = self.dir.results()
        require(found.rows, f"{self.path} has no row yet")
        return found._replace(metric=metric or report.own_metric(found, self.module))

    def _configs(self) -> dict[str, ConfigDict]:
        """{trial: its config}, in the order of the trials."""
        found = {
            name: config
            for group in self.dir.all_groups()
            for name, config in zip(group.members, group.configs(), strict=True)
        }
        return {t["id"]: found[t["id"]] for t in self.dir.stored()["trials"]}


def _full_key(name: str, given: Iterable[ConfigDict]) -> str:
    """The only key of the configs that is `name` or ends in it: "hp.lr" of "lr"."""
    keys = list(dict.fromkeys(key for config in given for key in configs.leaves(config)))
    found = [key for key in keys if key == name] or [k for k in keys if k.endswith(f".{name}")]
    near = nearest(name, [key.rsplit(".", 1)[-1] for key in keys])
    require(found, f"{name}: no key of the sweep's configs ends in it{near}")
    require(len(found) == 1, f"{name} may be {listing(found)}: give a dict with the whole key")
    return found[0]


def _to_png(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def sweep(
    config: str | Path | ConfigDict | None = None,
    grid: Mapping | Iterable[Mapping] = (),
    seeds: int = 0,
    workdir: str | Path = "",
    overrides: Mapping | None = None,
    *,
    experiment: str | Path | None = None,
    engine: str = "local",
    slots: int = 0,
    engine_settings: Mapping | None = None,
    route: str = "auto",
    metric: str = "",
    restart: bool = False,
    download: bool = False,
) -> Sweep:
    """Train every trial of a grid or an experiment, in processes of their own, and
    return the sweep. What is finished in `workdir` is not trained again.

    config           the name of a shipped config, the path of a Python file with
                     get_config(), or a ConfigDict
    grid             {"hp.lr": [1e-4, 1e-3], "z": [(2,), (8,)]}, of which all pairs are
                     trained; or a list of overrides, {"hp.lr": 1e-4, "seed": 3} each,
                     such as `aigc_jax.sweeps.grid` makes
    seeds            seeds 0 to seeds - 1 of each
    workdir          where everything is left: rows.csv, table.md, figure.png, and a run
                     directory a trial
    overrides        {"steps": "10 epochs"}: keys of the config of all trials
    experiment       instead of config, grid and seeds: the name or the path of an
                     experiment file with CONFIG and sweep() or search(suggest)
    engine, slots    where the programs run, "local", "slurm", "ray" or "k8s", and how
                     many at a time: of "local" by default one a GPU, else one
    engine_settings  what other engines read: cpus, gpus, time, partition, slurm,
                     address, image, claim, as on the command line
    route            trials of a program: all at once ("vmap"), one after another
                     ("map"), or the faster ("auto")
    metric           what table.md and figure.png show: "valid/loss"; by default
                     config.best
    restart          remove what groups that are not finished, or damaged, left
    download         fetch missing data

    >>> import aigc_jax
    >>> small = {"steps": 12, "model.widths": ((12,),), "z": (2,), "nll_samples": 10}
    >>> sweep = aigc_jax.sweep(
    ...     "vae_digits", {"hp.lr": [1e-3, 1e-2]}, 2, "runs/lr", overrides=small
    ... )
    >>> sweep
    Sweep('runs/lr', 4 trials)
    >>> [(trial["hp.lr"], trial["seed"], trial["status"]) for trial in sweep.trials()]
    [(0.001, 0, 'done'), (0.001, 1, 'done'), (0.01, 0, 'done'), (0.01, 1, 'done')]
    >>> {row["step"] for row in sweep.rows("test")}  # pandas.DataFrame(sweep.rows())
    {12}
    >>> sweep.run(lr=1e-2, seed=1).sample(3).shape
    (3, 8, 8, 1)
    >>> len(sweep.runs({"hp.lr": 1e-3}))
    2
    >>> sweep.figure("valid/neg_elbo").axes[0].get_ylabel()
    'valid neg_elbo'

    Raises a UserError for a mistake, before anything is trained, and where trials could
    not be finished; `aigc_jax.load(workdir)` has the others. Ctrl-C (in a notebook:
    interrupt) and SIGTERM have the processes save: then KeyboardInterrupt is raised,
    and the same call resumes. Memory of a GPU that this process has taken for itself
    is not free for the trials.
    """
    check_type("workdir", workdir, (str, Path), "a directory")
    require(str(workdir), f"{argument('workdir')} must be a directory, where all is left")
    if overrides is not None:
        check_type("overrides", overrides, Mapping, "a dict such as {'steps': '10 epochs'}")
    for name, value in dict(seeds=seeds, slots=slots).items():
        check_type(name, value, int, f"a number of {name}")
    settings = dict(engine_settings or {})
    known = [name for name in DEFAULT_SETTINGS if name != "slots"]
    for name in settings:
        require(
            name in known,
            f"engine_settings[{name!r}] is none of {listing(known)}{nearest(name, known)}",
        )
    request = make_request(config, experiment, _as_grids(grid), seeds, dict(overrides or {}))
    check_metric(metric)
    require(
        experiment is not None or grid or seeds,
        f"{argument('grid')} and {argument('seeds')} say what is swept: give one of them",
    )
    settings = DEFAULT_SETTINGS | settings | dict(engine=engine, slots=slots, workdir=workdir)
    try:
        complete = carry_out(request, SimpleNamespace(**settings), route, restart, download)
    except KeyboardInterrupt:
        print_warning("stopped, and what ran was told to save; the same call resumes")
        raise
    if complete is not None:  # else the engine wrote down what is to be run, no more
        finish(SweepDir(workdir), request.module, complete, metric, _say_nothing)
    return Sweep(workdir, request.module)


def _say_nothing(text, end="\n"):
    """The table is `Sweep.table`."""


def _as_grids(grid) -> list[list[dict]]:
    """Lists of overrides, of which all combinations are meant."""
    if not isinstance(grid, Mapping):
        check_type("grid", grid, (list, tuple, Iterator), "a dict such as {'hp.lr': [1e-4, 1e-3]}")
        given = list(grid)
        for trial in given:
            require(
                isinstance(trial, Mapping),
                f"{argument('grid')} has {trial!r}: it must be a dict such as "
                "{'hp.lr': [1e-4, 1e-3]}, or a list of overrides such as {'hp.lr': 1e-4}",
            )
        return [[dict(trial) for trial in given]] if given else []
    for key, values in grid.items():
        require(
            isinstance(values, Iterable) and not isinstance(values, (str, bytes, Mapping)),
            f"{argument('grid')}[{key!r}] = {values!r} must be a list of values",
        )
    return [grids.values(key, *values) for key, values in grid.items()]


def load(
    path: str | Path, checkpoint: str = "latest", data_dir: str | None = None
) -> "Run | Sweep":
    """The run in a work directory, at its "latest" or "best" good checkpoint, the sweep
    in one, or a GPT-2 directory as a run. A UserError where there is none of them.

    data_dir   where data sets lie, instead of config.run.data_dir

    >>> aigc_jax.load("runs/gan").step
    20
    >>> aigc_jax.load("runs/lr")
    Sweep('runs/lr', 4 trials)
    """
    check_type("path", path, (str, Path), "the directory of a run or of a sweep")
    require(str(path), f"{argument('path')}='' must name the directory of a run or of a sweep")
    if (Path(path) / "sweep.json").is_file():
        require(
            checkpoint == "latest",
            f"{path} is a sweep: {argument('checkpoint')}={checkpoint} is for one of its runs, "
            f"such as sweep.run(seed=0, {argument('checkpoint')}={checkpoint!r})",
        )
        return Sweep(path)
    from aigc_jax.inference.run import load as load_run

    return load_run(path, checkpoint, data_dir)
