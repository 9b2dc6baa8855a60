"""Trains, resumes, evaluates and samples every entry of every table of alternatives
through the launcher.

The options are read from the package's tables, so that a new entry is tested without a
change of this file (see `options`). In `make test` a covering design contains each
entry; the slow tier combines every two, and test_option_flags tests groups of two
trials and two devices. test_option_refusals tests incompatible options.
"""

import ast
import importlib
import importlib.util
import re

import options
import pytest
from covering import cover, met, pairs
from helpers import ROOT
from option_runs import (
    check_run,
    evaluate,
    finite,
    first_rows,
    first_sampler,
    further_rows,
    metrics_of,
    name_of,
    one_program,
    precision_of,
    problem,
    resume,
    sample,
    samplers,
    single_rows,
    still,
    train,
    usual,
)
from options import BASES, REAL, TESTED_ELSEWHERE, allowed, axes

from aigc_jax.data import schema as data_schema
from aigc_jax.metrics import EXTRACTED, METRICS
from aigc_jax.models.schema import MODEL
from aigc_jax.sweeps import engines
from aigc_jax.sweeps.trials import ROUTES
from aigc_jax.training import costs
from aigc_jax.training.schema import allowed_keys

pytestmark = pytest.mark.usefixtures("option_files")

# -- the covering design


def test_covering_design_contains_every_allowed_pair():
    """A small problem, whose pairs are counted by hand."""
    small = {
        "a": {"x": (0, 1, 2), "y": (0, 1), "z": (0, 1)},
        "b": {"x": (0, 1, 2), "w": ("s", "t")},
    }
    fits = lambda base, row: not (row.get("x") == 2 and row.get("y") == 1)
    wanted = pairs(small, fits)
    assert len(wanted) == (3 * 2 - 1) + 3 * 2 + 2 * 2 + 3 * 2 + (3 + 2 + 2) + (3 + 2)
    rows = cover(small, wanted, fits)
    assert wanted <= met(rows, 2) and len(rows) <= 14
    assert all(values.keys() == small[base].keys() and fits(base, values) for base, values in rows)
    assert rows == cover(small, wanted, fits) and rows != cover(small, wanted, fits, seed=1)
    with pytest.raises(AssertionError, match="no row holds"):
        cover(small, wanted | {frozenset([("x", 2), ("y", 1)])}, fits)


def test_bases_match_the_model_table_and_defaults_are_axis_values():
    assert BASES.keys() == MODEL.keys()
    for base in BASES:
        assert all(usual(base)[axis] in values for axis, values in axes(base).items()), base


def test_every_allowed_value_of_every_key_is_in_a_row():
    walked = met([*first_rows(), *single_rows()], 1)
    for base in BASES:
        for key in allowed_keys(*base).values():
            for value in key.allowed if key.name not in TESTED_ELSEWHERE else ():
                axis = (
                    f"{key.name}:{value}"
                    if f"{key.name}:{value}" in options.all_axes(base)
                    else key.name
                )
                item = (axis, True) if ":" in axis else (axis, value)
                assert frozenset([item]) in walked or item in ELSEWHERE or impossible(base, item), (
                    base,
                    item,
                )


# Tested with real data in test_option_flags, or with packages that may be missing.
ELSEWHERE = {("data.name", name) for name in REAL} | {
    ("data.script", "simplified"),
    ("data.tokenizer", "chinese_words"),
}


def test_every_data_set_has_a_kind():
    """So that the rows contain it, or test_option_flags trains it with real data."""
    kinds = (options.IMAGES, options.POINTS, options.TEXTS, options.PAIRS, REAL)
    assert {name for kind in kinds for name in kind} == set(data_schema.DATASETS), (
        "add it to IMAGES, POINTS, TEXTS, PAIRS or REAL of tests/options.py"
    )


def impossible(base, item) -> bool:
    """Whether the base refuses the option with all other options usual, or the option
    belongs to another kind of data.
    """
    return (
        item[0] == "data.name"
        or any(r.applies(usual(base) | dict([item])) for r in options.refusals_of(base))
        or item[1] not in axes(base).get(item[0], ())
    )


@pytest.mark.slow
def test_every_allowed_pair_of_options_is_in_a_row():
    assert pairs(problem(), allowed) <= met([*first_rows(), *further_rows()], 2)
    assert len(first_rows()) + len(further_rows()) <= 220


# With these options a step may leave a parameter unchanged.
STAYS = {
    ("frozen", "kernel"),
    ("lora.rank", 2),
    ("precision", "bfloat16_all"),  # small steps are rounded away
    ("data.tokenizer", "words"),  # attention to a source of one word is constant
}


# Gradients of the generator are proportional to the clipped weights, and the rate of
# sgd in these rows is 1e-5.
ROUNDED_AWAY = {("optimizer", "sgd"), ("gan.regularizers:weight_clipping", True)}

# Losses in which the discriminator's last bias has no gradient: its contributions of
# real and generated examples cancel, or only differences of logits are compared.
OF_DIFFERENCES = ("wasserstein", "hinge", "relativistic_average")


def may_stay(name: str, values) -> bool:
    """Whether a step may leave the parameter as it is."""
    # All biases of a discriminator without activation add a constant to its logits.
    linear = values.get("model.d.activation") == "identity"
    bias = r"params/d/.*/bias" if linear else r"params/d/\w*Dense_\d/bias"
    if values.get("loss") in OF_DIFFERENCES and re.fullmatch(bias, name):
        return True
    # Float32 beside 1 has steps of 6e-8: a gradient below 0.006 is rounded away.
    return values.get("optimizer") == "sgd" and name.endswith("/scale")


MOST_ROWS = 32  # rows are known when the test runs, since their data files are made then


@pytest.mark.parametrize("number", range(MOST_ROWS))
def test_runs_with_every_option(number, tmp_path):
    """The first row of a base is evaluated, that of a method is sampled, and each
    metric is evaluated on the first row that it suits. The first of all is resumed.
    """
    rows, path = first_rows(), tmp_path / "run"
    assert len(rows) <= MOST_ROWS, f"{len(rows)} rows: raise MOST_ROWS"
    if number >= len(rows):
        return
    base, values = rows[number]
    print(name_of(rows[number]))
    before = [base for base, _ in rows[:number]]
    names = [
        name
        for name in metrics_of(base, values)
        if not any(name in metrics_of(*row) for row in rows[:number])
    ]
    with precision_of(values), one_program():
        finite(train(path, base, values))
        options_of_row = set(values.items())
        if not (STAYS & options_of_row or options_of_row >= ROUNDED_AWAY):
            unchanged = [name for name in still(path) if not may_stay(name, values)]
            assert unchanged == [], "the second step did not change these; add to STAYS if right"
        if names or base not in before:
            evaluate(path, names)
        if base[0] not in [method for method, _ in before]:
            for what in samplers(path):
                sample(path, what)
        if number == 0:
            resume(path, base, values)


def test_every_metric_without_features_is_in_a_row():
    found = {name for row in first_rows() for name in metrics_of(*row)}
    assert found == METRICS.keys() - set(EXTRACTED)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(200))
def test_runs_with_every_pair_of_options(number, tmp_path, forget):
    rows = further_rows()
    assert len(rows) <= 200
    if number < len(rows):
        print(name_of(rows[number]))
        check_run(tmp_path / "run", *rows[number], resumed=number % 3 == 0, drawn=first_sampler)


@pytest.mark.slow
@pytest.mark.parametrize("row", single_rows(), ids=name_of)
def test_runs_of_each_base_and_each_large_data_set(row, tmp_path, forget):
    large = bool(row[1])
    drawn = first_sampler if large else samplers
    check_run(tmp_path / "run", *row, resumed=not large, drawn=drawn)


# -- tables


# Internal tables: no config, flag or file name of a user selects an entry.
INSIDE = {
    "inference.app.SLIDERS",
    "sweeps.colours.COLOURS",
    "sweeps.pages.charts.VALUES",
    "sweeps.pages.samples.KINDS",
    "media.music.SEMITONES",
    "media.music.SHARPS",
    "media.music.ACCIDENTALS",
    "training.costs.KINDS",
    "data.decoding.GREY_STEPS",
    "data.array_records.SPLITS",
    "data.hf.SPLITS",
    "data.token_files.SPLITS",
    "utils.memory.POWERS",
    "utils.quantities.METRIC_UNITS",
    "utils.synonyms.VALUES",
    "methods.hparams.DEFAULTS",
    "methods.schema.READ_BY",
    "data.schema.DEFAULTS",
    "data.schema.LANGUAGE_NAMES",
    "models.inception.POOLS",
    "media.curves.COLOURS",
    "utils.documents.FILES",
    "utils.tensor_files.TYPES",
    "data.npz.SPLITS",
    "training.gpt2_weights.TYPES",
    "sweeps.plots.LINE_STYLES",
}
# Tables of other tests, whose files must contain the entries.
ELSEWHERE_TABLES = {
    "data.cifar.FORMS": "data/test_cifar",
    "data.downloads.SOURCES": "data/test_downloads",
    "data.cifar.READERS": "data/test_cifar",
    "core.durations.UNITS": "integration/test_options",
    "cli.completion.SHELLS": "cli/test_list",
    "sweeps.statistics.INTERVALS": "sweeps/test_figures",
    "sweeps.statistics.STATISTICS": "sweeps/test_figures",
    "sweeps.styles.STYLES": "sweeps/test_figures",
    "inference.sheets.VIEWS": "integration/test_samplers",
}


def name_in(node) -> str:
    return getattr(node, "id", "") or getattr(node, "attr", "")


def variable_lookups() -> set:
    """Names of tables that a variable indexes: `choose(NAME, ...)`, `NAME[name]`."""
    found = set()
    for path in (ROOT / "launch.py", *(ROOT / "aigc_jax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Subscript) and not isinstance(
                node.slice, (ast.Constant, ast.Slice)
            ):
                found.add(name_in(node.value))
            elif isinstance(node, ast.Call) and name_in(node.func) == "choose":
                found |= {name_in(inner) for inner in ast.walk(node.args[0])}
    return found


def tables() -> dict:
    """{"module.NAME": its entries} of the tables of alternatives: constants of a module
    whose keys are strings and which a variable indexes.
    """
    out, used = {}, variable_lookups()
    for path in sorted((ROOT / "aigc_jax").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        targets = (
            t
            for node in ast.parse(path.read_text()).body
            for t in getattr(node, "targets", [getattr(node, "target", None)])
        )
        for target in filter(str.isupper, map(name_in, targets)):
            value = getattr(importlib.import_module(name), target)
            if (
                target in used
                and isinstance(value, dict | tuple)
                and len(value) > 1
                and all(isinstance(entry, str) for entry in value)
            ):
                out[f"{name.removeprefix('aigc_jax.')}.{target}"] = set(value)
    return out


def walked() -> list[set]:
    """The entries that the option tests cover."""
    allowed_ = [
        set(key.allowed) for base in MODEL for key in allowed_keys(*base).values() if key.allowed
    ]
    return [*allowed_, set(METRICS), set(engines.ENGINES), set(ROUTES), set(costs.HARDWARE)]


def test_every_table_of_alternatives_is_tested():
    found, there = tables(), walked()
    assert {
        "methods.losses.gan.GAN",
        "methods.optimizers.OPTIMIZERS",
        "sweeps.engines.ENGINES",
        "data.datasets.DATASETS",
        "models.recurrent.CELLS",
    } <= found.keys()
    missing = {
        name for name, entries in found.items() if not any(entries <= other for other in there)
    }
    assert missing - INSIDE - ELSEWHERE_TABLES.keys() == set(), "walk it, or say here why not"
    assert (INSIDE | ELSEWHERE_TABLES.keys()) <= found.keys()
    for name, file in ELSEWHERE_TABLES.items():
        assert all(
            repr(entry)[1:-1] in (ROOT / "tests" / f"{file}.py").read_text() or "." in entry
            for entry in found[name]
        ), name


def test_duration_units_convert_to_steps(tmp_path):
    """UNITS of durations, with 16 of 1,439 training examples per step."""
    from aigc_jax.core.durations import UNITS, duration_to_steps

    expected = {"step": 3, "steps": 3, "epoch": 270, "epochs": 270, "example": 1, "examples": 1}
    assert {
        unit: duration_to_steps(f"3 {unit}", "config.steps", 1439, 16) for unit in UNITS
    } == expected
