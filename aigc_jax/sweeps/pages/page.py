"""The HTML file of a report: its tables, and its charts and samples as data."""

import base64
import hashlib
import html
import importlib.util
import os
import re
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aigc_jax import __version__
from aigc_jax.sweeps import tables
from aigc_jax.sweeps.evidence import differing_keys
from aigc_jax.sweeps.pages import charts, samples, summary
from aigc_jax.sweeps.pages.charts import plain_label, shorten
from aigc_jax.sweeps.pages.collect import Collection
from aigc_jax.sweeps.pages.commands import format_train_command
from aigc_jax.sweeps.pages.difference_table import list_difference_variables
from aigc_jax.sweeps.pages.environments import summarize_environments
from aigc_jax.sweeps.pages.records import TrialRecord
from aigc_jax.sweeps.presentation import format_cell, shorten_keys
from aigc_jax.utils.errors import UserError
from aigc_jax.utils.files import open_regular_file
from aigc_jax.utils.quantities import METRIC_UNITS
from aigc_jax.utils.terminal import escape_controls
from aigc_jax.utils.text_table import Table, parse_markdown

FOLDER = Path(__file__).parent
PACKAGES = ("plotly", "jinja2")  # the extra "report"
MOST_TRIALS = 1000  # lines of a table
MOST_COLUMNS = 8  # trials side by side in the table of configs
MOST_VALUES = 30  # of a key in the table of configs
MOST_KEYS = 200
LINKED = (  # files beside the rows
    "rows.csv", "table.md", "figure.png", "figure.pdf", "figure.csv", "curves.png", "rows.jsonl",
    "config.json",
)  # fmt: skip
MOST_TABLE_BYTES = 5_000_000
MOST_ROWS = 100  # rows of rows.csv that are no trials
VALUE_LETTERS = 300


def find_missing_packages() -> list[str]:
    """Return the packages of the extra that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def require_packages() -> None:
    """Raise a UserError unless the packages of the extra are installed."""
    missing = find_missing_packages()
    if missing:
        raise UserError(f"a report needs {' and '.join(missing)}: pip install 'aigc_jax[report]'")


def make_page(collection: Collection, folder: Path) -> str:
    """Return the page, in which files are linked relative to `folder`.

    Raises:
      UserError: a package of the extra is missing.
    """
    require_packages()
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from jinja2.utils import htmlsafe_json_dumps

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=hide_controls,
    )
    environment.filters |= dict(
        short=lambda value: shorten(value, VALUE_LETTERS),
        text=shorten_text,
        unescape=html.unescape,
    )
    environment.globals |= dict(
        version=__version__,
        format_cell=format_cell,
        trial_cells=lambda values: list(map(format_cell, values)),
    )
    context = make_context(collection, folder)
    plotly = files("plotly").joinpath("package_data", "plotly.min.js").read_text("utf-8")
    scripts = [script.strip() for script in (plotly, (FOLDER / "page.js").read_text("utf-8"))]
    return environment.get_template("page.html").render(
        **context,
        json=htmlsafe_json_dumps(context["data"], separators=(",", ":"), allow_nan=False),
        css=(FOLDER / "page.css").read_text("utf-8"),
        plotly=scripts[0],
        script=scripts[1],
        hashes=" ".join(map(hash_script, scripts)),
    )


def hide_controls(value: Any) -> Any:
    """Return what a template prints, with escapes for the control characters of text.
    Only markup of this package has another type than `str`.
    """
    return escape_controls(value) if type(value) is str else value


def hash_script(text: str) -> str:
    """Return the source expression with which a content security policy allows an
    inline script. Raise a ValueError for a script that could end its element.
    """
    if re.search(r"</script|<!--|\r", text, re.I):
        raise ValueError("a script that an HTML parser would change")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def make_context(collection: Collection, folder: Path) -> dict[str, Any]:
    """Return the variables of page.html."""
    results, records = collection.results, collection.records
    table = summary.summarize_arms(results) if results.trials else None
    files = samples.list_samples([record.run for record in records])
    drawn = samples.embed_samples(files, order_trials(table, results.trials) if table else [])
    data, notes = make_data(collection, table, drawn)
    names = [shorten(trial["trial"]) for trial in results.trials]
    context = dict(
        c=collection,
        kind=collection.kind,
        title=shorten(collection.title),
        question=split_paragraphs(shorten_text(collection.question)),
        facts=list_facts(collection),
        made_by=summarize_environments(collection.environments),
        files=list_links(collection, folder),
        table=table,
        **list_difference_variables(table, results),
        agreement=describe_agreement(collection),
        claims=collection.comparisons,
        groups=data["groups"],
        colours={arm: group["colour"] for group in data["groups"] for arm in group["arms"]},
        chart_notes=notes,
        series=[key.split(": ", 1) for key in drawn.series],
        sounds=[
            (names[f.trial], f.path.name, uri, link(f.path, folder)) for f, uri in drawn.sounds
        ],
        sample_notes=drawn.notes,
        configs=compare_configs(records),
        data=data,
    )
    return (
        context | list_trial_variables(collection, table, folder) | list_row_variables(collection)
    )


def list_trial_variables(
    collection: Collection, table: summary.Summary | None, folder: Path
) -> dict[str, Any]:
    """Return the variables of page.html about trials and their states."""
    records = collection.records
    failed = [r for r in records if r.status.startswith("failed")]
    failures = {record.status for record in failed}
    main_metric = find_main_metric(collection, table)
    names = table.names if table else []
    metrics = [*names[main_metric : main_metric + 1], *names[:main_metric]][:2]
    trials = list_trials(collection, table, metrics, folder)
    return dict(
        failed=failed,
        pending=[r for r in records if r.status not in ("", "done", "stopped", *failures)],
        statuses=list(Counter(record.status for record in records).items()),
        keys=shorten_keys(collection.results.varied),
        trials=trials,
        trials_left=max(0, len(records) - MOST_TRIALS),
        trial_metrics=metrics,
        has_commands=any(trial["command"] for trial in trials),
        main_metric=main_metric,
    )


def list_row_variables(collection: Collection) -> dict[str, Any]:
    """Return the variables of page.html about the experiment's own table and figure,
    and about rows that are of no trials.
    """
    rows = collection.results.rows
    figure, note = embed_figure(collection.figure)
    is_bare = bool(rows) and not collection.results.trials
    return dict(
        own_table=[
            block if isinstance(block, Table) else shorten_text(block)
            for block in parse_markdown(collection.table)
        ],
        own_figure=figure,
        figure_note=note,
        bare_columns=list(rows[0]) if is_bare else [],
        bare_rows=[list(map(format_cell, row.values())) for row in rows[:MOST_ROWS]]
        if is_bare
        else [],
    )


def shorten_text(text: str) -> str:
    """Return untrusted text of several lines, without controls and not too long."""
    return escape_controls(text if len(text) <= 20_000 else text[:20_000] + "\u2026")


def split_paragraphs(text: str) -> list[tuple[bool, str]]:  # (is code, paragraph)
    """Return the paragraphs of a docstring; of code those whose lines are indented."""
    out = []
    for block in text.split("\n\n"):
        lines = block.strip("\n").splitlines()
        if block.strip():
            is_code = all(line.startswith("    ") for line in lines)
            words = "\n".join(line[4:] for line in lines) if is_code else " ".join(block.split())
            out.append((is_code, words))
    return out


def order_trials(table: summary.Summary, trials: list[dict]) -> list[int]:
    """Return the indices of the trials: the first of every arm, then the second."""
    order = {trial["trial"]: i for i, trial in enumerate(trials)}
    ranked = [(place, order[name]) for arm in table.arms for place, name in enumerate(arm.members)]
    return [i for _, i in sorted(ranked)]


def make_data(
    collection: Collection, table: summary.Summary | None, drawn: samples.Samples
) -> tuple[dict[str, Any], list[str]]:  # JSON of page.js, notes
    """Return the data of page.js, and notes about what the charts leave out."""
    results = collection.results
    notes: list[str] = []
    data: dict[str, Any] = dict(
        groups=[],
        arms=[],
        charts=[],
        axes=[],
        finals={},
        steps=[],
        series=list(drawn.series.values()),
    )
    data["trials"] = [shorten(trial["trial"]) for trial in results.trials]
    data["seeds"] = [trial.get("seed") for trial in results.trials]
    data["status"] = [plain_label(record.status) for record in collection.records]
    if table is not None:
        groups, note = charts.group_arms(table, results.best, results.mode)
        data["groups"] = [group._asdict() for group in groups]
        data["arms"] = [plain_label(arm.label) for arm in table.arms]
        place = {trial["trial"]: i for i, trial in enumerate(results.trials)}
        data["members"] = [[place[name] for name in arm.members] for arm in table.arms]
        data["charts"], notes = charts.make_curves(results, table)
        notes = [note] * bool(note) + notes
        data["steps"] = charts.share_steps(data["charts"])
        data["axes"] = charts.make_axes(results)
        data["finals"] = {
            plain_label(f"{table.split} {name}"): [charts.round_float32(v) for v in values]
            for name, values in summary.final_values(results, table).items()
        }
    data["units"] = METRIC_UNITS
    statistic, error_bar = results.view.describe()
    symmetric = results.view.error_bar in ("se", "sd")
    data["view"] = dict(statistic=statistic, bar=error_bar, symmetric=symmetric)
    return data, notes


def find_main_metric(collection: Collection, table: summary.Summary | None) -> int:
    """Return the index of the metric that hyper-parameters are shown against first: the
    one to show, else config.best_metric, else the first.
    """
    results, names = collection.results, table.names if table else []
    wanted = (results.metric or results.best).partition("/")[2]
    return names.index(wanted) if wanted in names else 0


def describe_agreement(collection: Collection) -> str:  # "" without a table of its own
    """Return whether table.md has the numbers of the page, where it is of this kind."""
    path = collection.folder and collection.folder / "table.md"
    results = collection.results
    if not path or collection.table or not results.trials or not path.is_file():
        return ""
    with open_regular_file(path) as f:
        text = f.read(MOST_TABLE_BYTES).decode("utf-8", "replace")
    if text.startswith(tables.format_summary_table(results)):
        return "The numbers are those of table.md."
    return (
        "table.md has other numbers: of other rows, another metric, or another statistic or "
        "error bar."
    )


def list_trials(
    collection: Collection, table: summary.Summary | None, metrics: list[str], folder: Path
) -> list[dict[str, Any]]:
    """Return the lines of the table of trials, with the last values of `metrics`."""
    last = tables.last_rows(collection.results.rows, table.split) if table else {}
    arms = table.arms if table else []
    arm_of = {name: i for i, arm in enumerate(arms) for name in arm.members}
    out = []
    pairs = zip(collection.results.trials, collection.records, strict=True)
    for trial, record in list(pairs)[:MOST_TRIALS]:
        row = last.get(record.name, {})
        out.append(
            dict(
                name=record.name,
                arm=arm_of.get(record.name),
                values=[format_cell(trial.get(k)) for k in collection.results.varied],
                seed=trial.get("seed", ""),
                status=record.status,
                step=record.step,
                metrics=[row.get(name) for name in metrics],
                href=link(record.run.path, folder) + "/" if record.run else "",
                command=escape_controls(format_train_command(record.origin, record.name)),
            )
        )
    return out


def compare_configs(records: list[TrialRecord]) -> dict[str, Any]:
    """Return the table of config keys: those that differ, with the values of each trial
    or of many trials the numbers of trials with each value; and those that all share.
    """
    flat = [record.config for record in records]
    keys = differing_keys(flat)[:MOST_KEYS] if len(flat) > 1 else []
    same = {k: v for k, v in flat[0].items() if k not in keys} if flat else {}
    show = lambda value: shorten("" if value is None else value, VALUE_LETTERS)
    lines = []
    for key in keys:
        values = [show(config.get(key)) for config in flat]
        counts = {value: values.count(value) for value in dict.fromkeys(values)}
        lines.append(
            dict(
                key=key,
                values=values if len(flat) <= MOST_COLUMNS else [],
                counts=list(counts.items())[:MOST_VALUES],
                more=max(0, len(counts) - MOST_VALUES),
            )
        )
    names = [record.name for record in records] if len(flat) <= MOST_COLUMNS else []
    shared = [(key, show(value)) for key, value in list(same.items())[:MOST_KEYS]]
    return dict(names=names, lines=lines, shared=sorted(shared))


def list_facts(collection: Collection) -> list[tuple[str, str]]:
    """Return (name, value) of what was varied: keys with their values, and seeds."""
    trials, out = collection.results.trials, []
    for key in collection.results.varied:
        values = dict.fromkeys(format_cell(trial.get(key)) for trial in trials)
        shown = ", ".join(list(values)[:MOST_VALUES])
        more = f" and {len(values) - MOST_VALUES} more" if len(values) > MOST_VALUES else ""
        out.append((key, shown + more))
    seeds = [trial["seed"] for trial in trials if trial.get("seed") is not None]
    if seeds:
        distinct = list(dict.fromkeys(map(str, seeds)))
        more = f" and {len(distinct) - MOST_VALUES} more" if len(distinct) > MOST_VALUES else ""
        out.append(("seed", ", ".join(distinct[:MOST_VALUES]) + more))
    return out


def list_links(collection: Collection, folder: Path) -> list[tuple[str, str]]:
    """Return (name, relative link) of the existing files beside the rows."""
    if collection.folder is None:
        return []
    found = [collection.folder / name for name in LINKED]
    return [(path.name, link(path, folder)) for path in found if path.is_file()]


def link(path: Path, folder: Path) -> str:
    """Return a relative URL of a file, from a page in `folder`."""
    relative = quote(os.fsencode(os.path.relpath(path.absolute(), folder.absolute())))
    return relative if relative.startswith((".", "/")) else f"./{relative}"


def embed_figure(path: Path | None) -> tuple[str, str]:  # data URI or "", a note or ""
    """Return the experiment's own figure as a data URI, or why it is not shown."""
    if path is None:
        return "", ""
    if not path.exists():
        return "", f"The figure of the experiment is not drawn yet: {path.name} is missing."
    try:
        return samples.encode_thumbnail(path, 200_000)[0], ""
    except Exception as e:  # of an untrusted file: also errors of the decoder
        return "", f"The figure of the experiment is not shown: {samples.describe_error(path, e)}."
