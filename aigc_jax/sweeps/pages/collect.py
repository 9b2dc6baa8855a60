"""What a report shows of runs, of a sweep or of an experiment, as plain dataclasses.

Run directories are untrusted: documents are verified by `utils.documents`, and no
Python file that a directory names is imported. Only an experiment that the caller names
is.
"""

import dataclasses
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from aigc_jax.sweeps import report as sweep_reports
from aigc_jax.sweeps import tables
from aigc_jax.sweeps.bare_rows import infer_trials
from aigc_jax.sweeps.claims import Comparison, compare_claim
from aigc_jax.sweeps.compare import unique_run_names
from aigc_jax.sweeps.evidence import (
    Results,
    differing_keys,
    format_csv,
    parse_rows,
    read_results,
    read_rows,
    to_csv_cell,
)
from aigc_jax.sweeps.experiment import Experiment, find_base_config, read_question
from aigc_jax.sweeps.pages.commands import Origin, read_run_origin
from aigc_jax.sweeps.pages.records import TrialRecord, describe_record, make_record, update_records
from aigc_jax.sweeps.presentation import PLAIN, Presentation
from aigc_jax.sweeps.request_json import check_experiment
from aigc_jax.sweeps.sweep import Sweep
from aigc_jax.training import config as configs
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils import documents
from aigc_jax.utils.disk import hide_paths
from aigc_jax.utils.errors import UserError, first_line
from aigc_jax.utils.python_files import REPOSITORY

MOST_COMMANDS = 20
MOST_KEYS = 4  # in which runs may differ, so that the keys name them


@dataclasses.dataclass(frozen=True)
class Collection:
    """The contents of a report.

    Attributes:
      kind: "run", "runs", "sweep" or "experiment".
      title: the name of the run, sweep or experiment.
      results: rows and trials.
      records: one for each trial of the results, in their order.
      question: the question of the experiment; "" if unknown.
      commands: command lines that made the rows.
      environments: contents of environment.json files.
      notes: sentences on what is missing.
      comparisons: the claims of the experiment and their outcomes.
      table: the experiment's own table, as Markdown; "" if it has none.
      figure: the file of the experiment's own figure, which may be missing; None if it
        has none.
      folder: the directory of the rows; None for several runs.
    """

    kind: str
    title: str
    results: Results
    records: list[TrialRecord]
    question: str = ""
    commands: list[str] = dataclasses.field(default_factory=list)
    environments: list[dict] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    comparisons: list[Comparison] = dataclasses.field(default_factory=list)
    table: str = ""
    figure: Path | None = None
    folder: Path | None = None


def collect_runs(
    paths: Sequence[str | Path], metric: str = "", view: Presentation = PLAIN
) -> Collection:
    """Return the contents of a report of one run or several.

    Args:
      paths: the run directories.
      metric: the first column of the table, such as "test/loss"; "": any.
      view: statistic, error bar and baseline.
    """
    found, damage = read_runs([RunDir(path) for path in paths])
    runs, read, rows_of_runs = zip(*found, strict=True)
    names = unique_run_names(runs)
    flat = [configs.flatten_config(configs.from_json_dict(c["config"])) for c in read]
    pairs = list(zip(names, runs, flat, read, strict=True))
    records = [make_record(n, r, f, read_run_origin(c)) for n, r, f, c in pairs]
    keys = choose_keys(flat)
    metrics = {key for rows in rows_of_runs for row in rows for key in row}
    rename = lambda values: {f"config.{k}" if k in metrics else k: v for k, v in values.items()}
    known = [
        dict(trial=name, **rename(values), seed=config.get("seed"))
        for (name, _, config, _), values in zip(pairs, name_values(names, flat, keys), strict=True)
    ]
    rows = [own | row for own, rows in zip(known, rows_of_runs, strict=True) for row in rows]
    described = map(describe_record, records, rows_of_runs)
    trials = [own | columns for own, columns in zip(known, described, strict=True)]
    varied = [key for key in known[0] if key not in ("trial", "seed")]
    best = str(flat[0].get("best_metric", ""))
    mode = str(flat[0].get("best_mode", "min"))
    results = Results(rows, trials, varied, best, mode=mode, view=view)
    is_trials = all(documents.is_in_sweep(run.path) for run in runs)
    results = results._replace(noun="trial" if is_trials else "run")
    results = results._replace(metric=choose_metric(results, metric, ""))
    records = update_records(records, results)
    return Collection(
        "run" if len(paths) == 1 else "runs",
        names[0] if len(paths) == 1 else f"{len(runs)} runs",
        results,
        records,
        commands=list_commands(records),
        notes=[*damage, *(list_notes(results) if rows else ["No row is written yet."])],
        environments=[r.environment for r in records],
        folder=runs[0].path if len(paths) == 1 else None,
    )


def read_runs(
    runs: Sequence[RunDir],
) -> tuple[list[tuple[RunDir, dict, list[dict]]], list[str]]:
    """Return (run, config.json, rows) of the runs that can be read, and a note on each
    other run. Raise a UserError if none can.
    """
    readable, errors = [], []
    for run in runs:
        try:
            readable.append((run, run.read_config_json(), run.read_rows()))
        except UserError as e:
            errors.append((run, e))
    if not readable:
        raise errors[0][1]
    return readable, [f"{run.path.name} is left out: {e}." for run, e in errors]


def list_commands(records: Iterable[TrialRecord]) -> list[str]:  # that trained runs
    """Return the different command lines of environment.json files."""
    found: dict[str, None] = {}
    for record in records:
        words = record.environment.get("command")
        if isinstance(words, list) and words:
            found[shlex.join(map(str, words))] = None
    return list(found)[:MOST_COMMANDS]


def choose_keys(flat_configs: list[dict[str, Any]]) -> list[str]:
    """Return the few config keys in which runs differ, except the seed and `run.*`; []
    if they are many, or if two runs are equal in them and in the seed.
    """
    keys = [k for k in differing_keys(flat_configs) if k != "seed" and not k.startswith("run.")]
    points = {repr([config.get(k) for k in [*keys, "seed"]]) for config in flat_configs}
    return keys if len(keys) <= MOST_KEYS and len(points) == len(flat_configs) else []


def name_values(
    names: Sequence[str], flat_configs: list[dict[str, Any]], keys: Sequence[str]
) -> list[dict[str, Any]]:  # the varied columns of each run
    """Return the columns that name each run: the values of `keys`, or its name."""
    if keys or len(names) == 1:
        return [{key: to_csv_cell(config.get(key)) for key in keys} for config in flat_configs]
    return [dict(run=name) for name in names]


def collect_sweep(
    path: str | Path, experiment: Experiment | None, metric: str = "", view: Presentation = PLAIN
) -> Collection:
    """Return the contents of a report of a sweep, which may be unfinished.

    Args:
      path: the directory.
      experiment: whose question, claims, table and figure are shown; None: none.
      metric: as in `sweeps.report.write_sweep_results`.
      view: statistic, error bar and baseline.

    Raises:
      UserError: the sweep is of another experiment.
    """
    sweep = Sweep(path)
    check_experiment(sweep.path, experiment)
    results, document = sweep.read_results(), sweep.read_sweep_json()
    if not metric:
        metric = sweep_reports.experiment_metric_or_blank(results, experiment)
    results = results._replace(metric=metric, view=view)
    request = documents.peek(sweep.path / "request.json") or {}
    records = update_records(collect_trials(sweep, document, request), results)
    rows = parse_rows(format_csv(results.rows)) if results.rows else []
    own = add_experiment(experiment, rows, sweep.path / "figure.png")
    own = dict(question=request.get("question", "")) | own
    notes = list_notes(results) if results.rows else ["No trial has a row yet."]
    return Collection(
        "sweep",
        sweep.path.absolute().name,
        results,
        records,
        commands=list(map(shlex.join, request.get("commands", []))),
        environments=[r.environment for r in records],
        notes=notes,
        folder=sweep.path,
        **own,
    )


def collect_trials(sweep: Sweep, document: dict, request: dict) -> list[TrialRecord]:
    """Return the record of each trial of a sweep."""
    members = {
        member["id"]: member
        for group in sweep.groups_by_name()
        for member in group.stored["members"]
    }
    records = []
    for trial in document["trials"]:
        name = trial["id"]
        flat = configs.flatten_config(configs.from_json_dict(members[name]["config"]))
        origin = None
        if "config" in request:
            origin = Origin(request["config"], request["changes"] | trial["overrides"])
        records.append(make_record(name, sweep.trial_dir(name), flat, origin))
    return records


def list_notes(results: Results) -> list[str]:  # the lines below table.md
    """Return the notes of table.md; a note about the metric, where it is missing."""
    try:
        return sweep_reports.make_notes(results) + tables.describe_failed_trials(results)
    except UserError as e:
        return [str(e)]


def collect_rows(
    folder: Path,
    experiment: Experiment | None,
    title: str,
    metric: str = "",
    view: Presentation = PLAIN,
) -> Collection:
    """Return the contents of a report of a directory with rows.csv: the committed rows
    of an experiment, or those that its own function wrote.

    Args:
      folder: the directory.
      experiment: the experiment, if it is known.
      title: its name.
      metric: as in `collect_sweep`.
      view: as in `collect_sweep`.
    """
    check_experiment(folder, experiment)
    results = read_results(folder)
    notes = []
    is_known = results is not None
    if results is None:
        rows = Results(read_rows(folder), trials=[], varied=[])
        results = infer_trials(rows, experiment.column if experiment else "")
        notes = ["The rows do not record which trials failed or have no row."]
    results = results._replace(view=view)
    if results.trials:
        results = results._replace(
            metric=choose_metric(results, metric, experiment.metric if experiment else "")
        )
    records = make_row_records(results, experiment, is_known)
    environment = documents.peek(folder / "environment.json")
    if experiment is None:
        notes.append("Claims and the table of the experiment need its file: name the experiment.")
    return Collection(
        "experiment",
        title,
        results,
        records,
        environments=[environment] if environment else [],
        notes=[*notes, *(list_notes(results) if results.trials else [])],
        folder=folder,
        commands=[f"aigc sweep --experiment={title} --workdir=runs/{title}"] * bool(experiment),
        **add_experiment(experiment, read_rows(folder), folder / "figure.png"),
    )


def make_row_records(
    results: Results, experiment: Experiment | None, is_known: bool
) -> list[TrialRecord]:
    """Return the records of trials whose rows alone are stored.

    Args:
      results: the results.
      experiment: the experiment; None: unknown.
      is_known: whether the statuses are.
    """
    origin = find_experiment_origin(experiment) if experiment else None
    return [
        TrialRecord(
            trial["trial"],
            trial["status"] if is_known else "",
            str(trial.get("failure", "")),
            config={k: trial.get(k) for k in (*results.varied, "seed") if k in trial},
            origin=origin and origin.with_changes(trial, results.varied),
        )
        for trial in results.trials
    ]


def choose_metric(results: Results, wanted: str, of_experiment: str) -> str:
    """Return `wanted`, else the metric of the results or of the experiment, if a row
    has it, else "". Raise a UserError if no row has `wanted`.
    """
    if wanted:
        tables.parse_metric(wanted, results.rows, results.varied)
        return wanted
    metric = results.metric or of_experiment
    return metric if tables.has_metric(metric, results.rows, results.varied) else ""


def find_experiment_origin(experiment: Experiment) -> Origin | None:
    """Return the base config of an experiment; None if it has none of its own."""
    if experiment.config is None or experiment.run is not None:
        return None
    file = hide_paths(str(find_base_config(experiment)), REPOSITORY)
    return Origin(file, dict(experiment.overrides))


def add_experiment(
    experiment: Experiment | None, rows: list[dict], figure: Path
) -> dict[str, Any]:  # fields of Collection
    """Return what the experiment adds to a report: its question, claims, table and
    figure. Claims and a table that fail, since trials are missing, are left out with a
    note in their place.

    Args:
      experiment: the experiment; None: nothing is added.
      rows: the rows as `evidence.read_rows` returns them.
      figure: the file of its own figure, if it has one.
    """
    if experiment is None:
        return {}
    assert experiment.file is not None
    out: dict[str, Any] = dict(question=read_question(experiment.file))
    try:
        out["comparisons"] = [compare_claim(claim, rows) for claim in experiment.claims]
    except Exception as e:  # a function of the experiment, on rows that are incomplete
        out["question"] += f"\n\nClaims need the missing trials ({first_line(e)})."
    if experiment.table is not None:
        try:
            out["table"] = experiment.table(rows)
        except Exception as e:
            out["question"] += f"\n\nThe table needs the missing trials ({first_line(e)})."
    if experiment.figure is not None:
        out["figure"] = figure
    return out
