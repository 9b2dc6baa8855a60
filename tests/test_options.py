"""Every entry of every table of alternatives, through the launcher: trained, resumed, evaluated and sampled, alone and in pairs, in
groups of trials and over devices; and what does not go together, refused by one sentence.

The tables are read, never copied: a new entry is walked without a line here (see `options`). In `make test` a covering design holds
each entry once; in the slow tier each is walked by itself, with every other, in a group of two trials and over two devices.
"""

import ast
import contextlib
import functools
import importlib
import importlib.util
import io
import itertools
import json
import math
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import options
import pytest
from conftest import ROOT, command_line, drop_programs
from covering import cover, met, pairs, row_with
from options import APART, BASES, LM, REAL, SEQ, allowed, axes, default

import aigc_jax
import launch
from aigc_jax import config as configs
from aigc_jax import costs, engines, keys
from aigc_jax.checkpoint import Checkpoints, digest
from aigc_jax.metrics import EXTRACTED, METRICS
from aigc_jax.results import RunDir
from aigc_jax.sweep import ROUTES, Sweep, trials_of

RNN = ("lm", "recurrent")


def usual(base):
    return default(base)[1]


@functools.cache
def problem() -> dict:
    return {base: axes(base, quick=True) for base in BASES}


@functools.cache
def first_rows() -> list:
    """Rows that hold every option: the part of the design that `make test` runs, with one derivative of a derivative each."""
    quick = lambda base, values: allowed(base, values) and options.weight(values) <= 1
    every = {frozenset([("base", base)]) for base in BASES}
    every |= {frozenset([(axis, value)]) for found in problem().values() for axis, values in found.items() for value in values}
    return cover(problem(), every, quick, usual, tries=6)


@functools.cache
def further_rows() -> list:
    """Rows that hold, with the first ones, every two options."""
    return cover(problem(), pairs(problem(), allowed) - met(first_rows(), 2), allowed, usual, tries=4)


def single_rows() -> list:
    """Each base as it is, and each option by itself in the first base that has it."""
    rows, seen = [(base, {}) for base in BASES], set()
    for base in BASES:
        for item in ((axis, value) for axis, values in axes(base).items() for value in values):
            if item not in seen and usual(base)[item[0]] != item[1] and allowed(base, usual(base) | dict([item])):
                seen.add(item)
                rows.append((base, dict([item])))
    return rows


@functools.cache
def rows_of(base) -> list:
    """Rows that hold every option of one base; at most ROWS."""
    one = {base: axes(base, quick=True)}
    return cover(one, {frozenset([(axis, value)]) for axis, values in one[base].items() for value in values}, allowed, usual, tries=20)


def name_of(row) -> str:
    base, values = row
    return f"{'-'.join(filter(None, base))}: " + ", ".join(f"{a}={v}" for a, v in values.items() if v != usual(base)[a])


ROWS = 9
rows_of_each_base = [pytest.param(base, number, id=f"{'-'.join(filter(None, base))}-{number}") for base in BASES for number in range(ROWS)]


# -- one run


@pytest.fixture(autouse=True, scope="module")
def files():
    """The data sets of the rows, and a cache of their own; what run.deterministic changes is changed back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(options.FILES / "cache"))
        patch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
        options.write_files()
        yield


@pytest.fixture
def forget():
    """Programs are not kept, of which a process may have a few hundred; nor those of tests before."""
    drop_programs()
    yield
    drop_programs()


def call(*words):
    """(exit code, standard output, standard error) of the launcher in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = launch.main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def done(*words) -> str:
    """The standard output of a command that must succeed."""
    code, out, err = call(*words)
    assert code == 0 and "Traceback" not in err, err
    return out


def refused(words, sentence):
    code, out, err = call(*words)
    assert code == 1 and out == "" and err.startswith("error: ") and len(err.splitlines()) == 1 and "Traceback" not in err, (out, err)
    assert sentence in err, err


def precision_of(values):
    """float64 needs JAX_ENABLE_X64, which a process reads when it starts."""
    return jax.enable_x64(True) if values.get("precision") == "float64" else contextlib.nullcontext()


def train(path, base, values, **more):
    done("train", *options.words(base, values), f"--workdir={path}", *(f"--config.{k.replace('__', '.')}={v}" for k, v in more.items()))
    return RunDir(path).rows()


def finite(rows):
    assert [row["step"] for row in rows if row["split"] == "train"] == [1, 2]
    assert {row["split"] for row in rows} == {"train", "valid", "test"}
    for row in rows:
        assert all(math.isfinite(v) for k, v in row.items() if k != "split"), row


def state_of(path) -> str:
    """A digest of the newest state."""
    with Checkpoints(Path(path) / "checkpoints") as checkpoints:
        return digest(checkpoints.newest(print)[0])


def resume(path, base, values):
    """As if the run had been killed after its first step: it ends in the same bytes."""
    rows, state = (path / "rows.jsonl").read_bytes(), state_of(path)
    shutil.rmtree(path / "checkpoints" / "2")
    train(path, base, values)
    assert (path / "rows.jsonl").read_bytes() == rows and state_of(path) == state


def samplers(path) -> list[str]:
    run = aigc_jax.load(path)
    return [*run.programs.method.samplers, *(["neighbours"] if "prior" in run.programs.method.samplers else [])]


def sample(path, what):
    """Samples as they are saved."""
    done("sample", f"--workdir={path}", f"--what={what}", "--num=4", f"--out={path / what}.npy")
    x = np.load(path / f"{what}.npy")
    assert len(x) == 4 and np.isfinite(x.astype(np.float64)).all()


def metrics_of(base, values) -> list[str]:
    """The metrics that look at no features, of those that suit a row."""
    method, points = base[0], (usual(base) | values)["data.name"] in options.POINTS
    fits = {"modes": method in ("gan", "vae") and points, "nll": method == "vae", "variety": method == "lm",
            **dict.fromkeys(("bleu", "rouge"), method in ("seq2seq", "lm")), "bleu_greedy": method == "seq2seq"}  # fmt: skip
    return [name for name in METRICS if name not in EXTRACTED and fits.get(name, method in ("gan", "vae") and not points)]


def evaluate(path, names):
    """The numbers that `evaluate --metrics` prints and keeps are finite, and there is one of each name or more."""
    done("evaluate", f"--workdir={path}", *([f"--metrics={','.join(names)}"] if names else []), "--num=24")
    row = json.loads((path / "evaluations.jsonl").read_text().splitlines()[-1])
    numbers = {k: v for k, v in row.items() if isinstance(v, float)}
    assert len(numbers) >= len(names) and all(map(math.isfinite, numbers.values())), numbers
    signed = {name for name in names if name in ("bleu", "bleu_greedy", "variety")}
    assert {k for k in row if k.endswith("_signature")} == {f"{name}_signature" for name in signed}


def whole(path, base, values, resumed=True, drawn=samplers):
    """All that a run goes through."""
    with precision_of(values):
        finite(train(path, base, values))
        if resumed:
            resume(path, base, values)
        evaluate(path, metrics_of(base, values))
        for what in drawn(path):
            sample(path, what)


def first_sampler(path):
    return samplers(path)[:1]


# -- the covering design


def test_a_covering_design_holds_every_pair_that_may_meet():
    """A small problem, whose pairs are listed here by hand."""
    small = {"a": {"x": (0, 1, 2), "y": (0, 1), "z": (0, 1)}, "b": {"x": (0, 1, 2), "w": ("s", "t")}}
    fits = lambda base, row: not (row.get("x") == 2 and row.get("y") == 1)
    wanted = pairs(small, fits)
    assert len(wanted) == (3 * 2 - 1) + 3 * 2 + 2 * 2 + 3 * 2 + (3 + 2 + 2) + (3 + 2)
    rows = cover(small, wanted, fits)
    assert wanted <= met(rows, 2) and len(rows) <= 14
    assert all(values.keys() == small[base].keys() and fits(base, values) for base, values in rows)
    assert rows == cover(small, wanted, fits) and rows != cover(small, wanted, fits, seed=1)
    with pytest.raises(AssertionError, match="no row holds"):
        cover(small, wanted | {frozenset([("x", 2), ("y", 1)])}, fits)


def test_every_base_is_a_method_and_a_network():
    assert BASES.keys() == keys.MODEL.keys()
    for base in BASES:
        assert all(usual(base)[axis] in values for axis, values in axes(base).items()), base


def test_every_allowed_value_of_every_key_is_in_a_row():
    walked = met([*first_rows(), *single_rows()], 1)
    for base in BASES:
        for key in keys.keys_of(*base).values():
            for value in key.allowed if key.name not in APART else ():
                axis = f"{key.name}:{value}" if f"{key.name}:{value}" in options.all_axes(base) else key.name
                item = (axis, True) if ":" in axis else (axis, value)
                assert frozenset([item]) in walked or item in ELSEWHERE or impossible(base, item), (base, item)


# Walked by the tests of real data below, or by those of packages that may be missing.
ELSEWHERE = {("data.name", name) for name in REAL} | {("data.script", "simplified"), ("data.tokenizer", "chinese_words")}


def impossible(base, item) -> bool:
    """An option that is refused whatever is beside it, or that another kind of data has: `refusals` below has it."""
    return item[0] == "data.name" or any(r.applies(usual(base) | dict([item])) for r in options.refusals_of(base)) or item[1] not in axes(
        base).get(item[0], ())  # fmt: skip


@pytest.mark.slow
def test_every_two_options_are_in_a_row():
    assert pairs(problem(), allowed) <= met([*first_rows(), *further_rows()], 2)
    assert len(first_rows()) + len(further_rows()) <= 220


@pytest.mark.parametrize("number", range(26))
def test_a_run_of_every_option(number, tmp_path):
    """Each base is evaluated and each method sampled where it comes first, and each metric where it fits first."""
    rows, path = first_rows(), tmp_path / "run"
    assert len(rows) <= 26
    if number >= len(rows):
        return
    base, values = rows[number]
    print(name_of(rows[number]))
    before = [base for base, _ in rows[:number]]
    names = [name for name in metrics_of(base, values) if not any(name in metrics_of(*row) for row in rows[:number])]
    with precision_of(values):
        finite(train(path, base, values))
        if names or base not in before:
            evaluate(path, names)
        if base[0] not in [method for method, _ in before]:
            for what in samplers(path):
                sample(path, what)
        if number == 0:
            resume(path, base, values)


def test_every_metric_that_looks_at_no_features_is_in_a_row():
    found = {name for row in first_rows() for name in metrics_of(*row)}
    assert found == METRICS.keys() - set(EXTRACTED)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(200))
def test_a_run_of_every_two_options(number, tmp_path, forget):
    rows = further_rows()
    assert len(rows) <= 200
    if number < len(rows):
        print(name_of(rows[number]))
        whole(tmp_path / "run", *rows[number], resumed=number % 3 == 0, drawn=first_sampler)


@pytest.mark.slow
@pytest.mark.parametrize("row", single_rows(), ids=name_of)
def test_a_run_of_each_option(row, tmp_path, forget):
    whole(tmp_path / "run", *row, drawn=first_sampler if row[1] else samplers)


# -- what is refused


def refusals(every: bool) -> list:
    """(base, options that must not meet, sentence): of each sentence one, or all."""
    out, seen = [], set()
    for base in BASES:
        for refusal in options.refusals_of(base):
            for values in itertools.product(*refusal.when.values()):
                some = dict(zip(refusal.when, values, strict=True))
                if any(r.words != refusal.words and r.applies(some) for r in options.refusals_of(base)):
                    continue  # refused for another reason already, such as a package that is missing
                if all(value in options.all_axes(base)[axis] for axis, value in some.items()) and (every or refusal.words not in seen):
                    seen.add(refusal.words)
                    out.append((base, some, refusal.words))
    return out


def check_refused(case, tmp_path):
    base, some, words = case
    other = lambda base, row: not any(r.applies(row) for r in options.refusals_of(base) if r.words != words) and not options.unread(base, row)
    found = row_with(options.all_axes(base), base, some, other, usual)
    assert found, "no row has these options and nothing else that is refused"
    with precision_of(found[1]):
        refused(["train", *options.words(*found), f"--workdir={tmp_path / 'run'}"], words)
    assert not (tmp_path / "run" / "config.json").exists()


name_of_case = lambda case: f"{name_of(case[:2])}: {case[2]}"


@pytest.mark.parametrize("case", refusals(every=False), ids=name_of_case)
def test_what_does_not_go_together_is_one_sentence(case, tmp_path):
    check_refused(case, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", refusals(every=True), ids=name_of_case)
def test_all_that_does_not_go_together_is_one_sentence(case, tmp_path):
    check_refused(case, tmp_path)


@pytest.mark.parametrize("base, data, sentence", [
    (("gan", "mlp"), "text", "neither pictures nor points"), (("vae", "mlp"), "text", "neither pictures nor points"),
    (("vqvae", ""), "text", "pictures"), (("classifier", ""), "text", "labelled pictures"), (LM, "digits", "reads text"),
    (("mlm", ""), "digits", "reads text"),
    (SEQ, "digits", "reads pairs"), (SEQ, "text", "reads pairs"), (("gan", "dcgan"), "ring", "are for pictures"),
    (("gan", "resnet"), "ring", "for pictures"), (("vae", "conv"), "ring", "are for pictures"), (("vqvae", ""), "ring", "are for pictures"),
    (("classifier", ""), "ring", "labelled pictures"), (("gan", "mlp"), "pairs", "neither pictures nor points"),
], ids=str)  # fmt: skip
def test_data_that_a_method_cannot_read_are_one_sentence(base, data, sentence, tmp_path):
    values = {"data.name": data} | ({"likelihood": "gaussian", "binarize": "none"} if base[0] == "vae" else {})
    refused(["train", *options.words(base, values), f"--workdir={tmp_path / 'run'}"], sentence)


def test_a_key_that_the_data_set_does_not_read_is_one_sentence(tmp_path):
    for base in BASES:
        for axis in ("data.colour", "data.joined"):
            words = options.words(base, {})
            value = "grey" if axis == "data.colour" else True
            if usual(base)["data.name"] not in ("folder", "pairs"):
                refused(["train", *words, f"--config.{axis}={value}", f"--workdir={tmp_path / 'run'}"], "is read by nothing")


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is there")
def test_a_tracker_whose_package_is_missing_is_one_sentence(tmp_path):
    for value in next(key for key in keys.RUN if key.name == "run.wandb").allowed[1:]:
        words = ["train", *options.words(("classifier", ""), {}), f"--config.run.wandb={value}"]
        refused([*words, f"--workdir={tmp_path / value}"], "needs the package wandb")


# -- tables


# Tables whose entries no config, flag or file name of a user names.
INSIDE = {
    "abc.SEMITONES", "abc.SHARPS", "abc.ACCIDENTALS", "costs.KINDS", "data.folder.GREY_STEPS", "data.token_files.SPLITS", "errors.SYNONYMS",
    "hparams.DEFAULTS", "models.inception.POOLS", "pictures.COLOURS", "stored.FILES",
    "torch_files.TYPES", "data.npz.SPLITS", "gpt2.TYPES", "tables.LINE_STYLES",
}  # fmt: skip
# Tables that another test walks: its file names their entries.
ELSEWHERE_TABLES = {"data.cifar.FORMS": "test_cifar", "data.cifar.CHECKSUMS": "test_cifar", "data.cifar.READERS": "test_cifar",
                    "durations.UNITS": "test_options", "data.tokenizers.MAKERS": "test_text"}  # fmt: skip


def name_in(node) -> str:
    return getattr(node, "id", "") or getattr(node, "attr", "")


def looked_up() -> set:
    """Names of what the code takes an entry from by a variable: `choose(NAME, ...)`, `NAME[name]`."""
    found = set()
    for path in (ROOT / "launch.py", *(ROOT / "aigc_jax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Subscript) and not isinstance(node.slice, (ast.Constant, ast.Slice)):
                found.add(name_in(node.value))
            elif isinstance(node, ast.Call) and name_in(node.func) == "choose":
                found |= {name_in(inner) for inner in ast.walk(node.args[0])}
    return found


def tables() -> dict:
    """{"module.NAME": its entries} of the tables of alternatives: named at the top of a module, entries called by texts, looked up by a variable."""
    out, used = {}, looked_up()
    for path in sorted((ROOT / "aigc_jax").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        targets = (t for node in ast.parse(path.read_text()).body for t in getattr(node, "targets", [getattr(node, "target", None)]))
        for target in filter(str.isupper, map(name_in, targets)):
            value = getattr(importlib.import_module(name), target)
            if target in used and isinstance(value, dict | tuple) and len(value) > 1 and all(isinstance(entry, str) for entry in value):
                out[f"{name.removeprefix('aigc_jax.')}.{target}"] = set(value)
    return out


def walked() -> list[set]:
    """The entries that tests of this file walk."""
    allowed_ = [set(key.allowed) for base in keys.MODEL for key in keys.keys_of(*base).values() if key.allowed]
    return [*allowed_, set(METRICS), set(engines.ENGINES), set(ROUTES), set(costs.HARDWARE)]


def test_every_table_of_alternatives_is_walked():
    found, there = tables(), walked()
    assert {"losses.GAN", "optim.OPTIMIZERS", "engines.ENGINES", "data.DATASETS", "models.recurrent.CELLS"} <= found.keys()
    missing = {name for name, entries in found.items() if not any(entries <= other for other in there)}
    assert missing - INSIDE - ELSEWHERE_TABLES.keys() == set(), "walk it, or say here why not"
    assert (INSIDE | ELSEWHERE_TABLES.keys()) <= found.keys()
    for name, file in ELSEWHERE_TABLES.items():
        assert all(repr(entry)[1:-1] in (ROOT / "tests" / f"{file}.py").read_text() or "." in entry for entry in found[name]), name


def test_every_unit_of_a_duration_gives_its_steps(tmp_path):
    """16 of 1,439 digits a step: UNITS of durations."""
    from aigc_jax.durations import UNITS, steps_of

    expected = {"step": 3, "steps": 3, "epoch": 270, "epochs": 270, "example": 1, "examples": 1}
    assert {unit: steps_of(f"3 {unit}", "config.steps", 1439, 16) for unit in UNITS} == expected


# -- metrics, samplers, decoding, engines


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(base, values) -> the directory of such a run, trained when it is first asked for."""
    found = {}

    def run(base, values=None):
        key = repr((base, values))
        if key not in found:
            found[key] = tmp_path_factory.mktemp("options") / "run"
            train(found[key], base, values or {})
        return found[key]

    return run


@pytest.mark.slow
def test_every_metric_that_looks_at_features(runs, tmp_path, monkeypatch):
    """Through a classifier of one step; stacked_modes is of real digits in three colours."""
    from aigc_jax import extractors

    monkeypatch.setenv("AIGC_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(extractors, "CLASSIFIERS", {name: (data, "1 step") for name, (data, _) in extractors.CLASSIFIERS.items()})
    extractors.of_data.cache_clear()
    try:
        evaluate(runs(("gan", "mlp"), {"game.condition": "projection"}), [name for name in EXTRACTED if name != "stacked_modes"])
        refused(["evaluate", f"--workdir={runs(('gan', 'mlp'))}", "--metrics=stacked_modes"], "three")
    finally:
        extractors.of_data.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES, ids=str)
def test_every_metric_of_every_base_is_a_number_or_one_sentence(base, runs):
    path = runs(base)
    for name in (name for name in METRICS if name not in EXTRACTED):
        code, _, err = call("evaluate", f"--workdir={path}", f"--metrics={name}", "--num=16")
        assert code == 0 or (code == 1 and err.startswith("error: ") and len(err.splitlines()) == 1), (name, err)


# flag of `sample` that says how text is written -> values
DECODING = {"temperature": (0, 0.7), "top_k": (1, 5), "top_p": (1e-9, 0.9), "min_p": (0.5,), "repetition": (1.3,), "tokens": (1, 9),
            "prompt": ("Line 3",), "prompt_file": (options.FILES / "texts" / "one.txt",), "interactive": (), "num": (1, 3),
            "seed": (0, 5)}  # fmt: skip
OTHER_FLAGS = {"workdir", "checkpoint", "out", "what", "label", "help"}


def test_every_flag_of_sampling_is_walked():
    flags = {action.dest for action in launch.parser()._subparsers._group_actions[0].choices["sample"]._actions}
    assert flags == DECODING.keys() | OTHER_FLAGS


@pytest.mark.parametrize("base", [pytest.param(LM, id="transformer"), pytest.param(RNN, id="recurrent", marks=pytest.mark.slow)])
def test_every_decoding_flag(base, runs, monkeypatch):
    run = aigc_jax.load(runs(base))
    monkeypatch.setattr(aigc_jax, "load", lambda *_: run)
    write = lambda *words: done("sample", f"--workdir={run.dir.path}", "--tokens=4", *words)
    monkeypatch.setattr("sys.stdin", io.StringIO("Line 1\nLine 2\n"))
    texts = {flag: [write(f"--{flag}={value}") for value in values] for flag, values in DECODING.items() if values}
    texts["interactive"] = [write("--interactive")]
    assert all(text.endswith("\n") for found in texts.values() for text in found)
    assert len(texts["tokens"][0]) < len(texts["tokens"][1]) and texts["prompt"][0].startswith("Line 3")
    assert texts["temperature"][0] == texts["top_k"][0] == texts["top_p"][0]  # the likeliest token, however it is asked for
    assert texts["num"][1].count("----") == 2 and texts["seed"][0] != texts["seed"][1]


@pytest.mark.slow
def test_a_sequence_to_sequence_model_answers_and_reads_prompts_line_by_line(runs, monkeypatch):
    path = runs(SEQ)
    assert len(done("sample", f"--workdir={path}", "--prompt=1234").splitlines()) == 1
    monkeypatch.setattr("sys.stdin", io.StringIO("12\n34\n"))
    assert done("sample", f"--workdir={path}", "--interactive").count("\n") >= 2


@pytest.mark.slow
def test_every_hardware_is_planned_for(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    table = done("plan", *options.words(("vae", "mlp"), {}), f"--hardware={','.join(costs.HARDWARE)}")
    assert all(hardware.name.split()[-1] in table or name in table for name, hardware in costs.HARDWARE.items())


# -- groups of trials, devices, processes


def group_of(path, base, values, route, seeds=(0, 1)) -> list[RunDir]:
    """Two trials that differ in their seeds, as one program."""
    config = config_of(base, values)
    sweep = Sweep(path)
    sweep.add(trials_of(config, [{"seed": seed} for seed in seeds]), "test")
    for group in sweep.groups():
        assert call("group", f"--workdir={group.path}", f"--route={route}")[0] == 0
    return [RunDir(sweep.trial(t["id"]).path) for t in sweep.stored()["trials"]]


def config_of(base, values):
    given, (file,) = launch.split_overrides(options.words(base, values))
    return configs.override(configs.load(file.removeprefix("--config=")), given)


def same_rows(one, other, tolerance):
    """Of the same steps and splits, with numbers that differ by rounding."""
    assert [(r["step"], r["split"]) for r in one] == [(r["step"], r["split"]) for r in other]
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"split"}:
            assert a[key] == pytest.approx(b[key], rel=tolerance, abs=tolerance), (key, a["step"], a["split"])


COARSE = ("bfloat16", "bfloat16_all")


@pytest.mark.slow
@pytest.mark.parametrize("base, number", rows_of_each_base)
def test_options_in_groups_and_over_devices_are_those_of_one_run(base, number, tmp_path, forget):
    """A trial of a group, and a run over two devices, has the losses of a run by itself, to rounding."""
    rows = rows_of(base)
    assert len(rows) <= ROWS
    if number >= len(rows):
        return
    row = rows[number]
    print(name_of(row))
    values = row[1] | {"run.mesh.data": 1, "run.mesh.model": 1, "run.data": "device"}
    tolerance = 0.2 if values.get("precision") in COARSE or values.get("moments") else 2e-2
    with precision_of(values):
        alone = train(tmp_path / "alone", base, values)
        finite(alone)
        trials = group_of(tmp_path / "group", base, values, "vmap" if len(name_of(row)) % 2 else "map")
        for trial in trials:
            finite(trial.rows())
        same_rows(trials[0].rows(), alone, tolerance)
        if not values.get("model.dropout"):  # whose masks are drawn for the part of a batch that a device has
            same_rows(train(tmp_path / "devices", base, values | {"run.mesh.data": 2}), alone, tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES, ids=lambda base: "-".join(filter(None, base)))
def test_options_in_a_process_of_their_own(base, tmp_path):
    values = rows_of(base)[0][1] | {"precision": "float32", "run.mesh.data": 1, "run.mesh.model": 1}
    path = tmp_path / "run"
    for words in (["train", *options.words(base, values)], ["evaluate"], ["sample", f"--what={'reconstruction' if base[0] == 'vqvae' else ''}"]):
        words = [word for word in words if word != "--what="]
        process = command_line(*words, f"--workdir={path}", timeout=300)
        assert process.returncode == 0 or base[0] == "classifier", process.stderr
    finite(RunDir(path).rows())


ENGINE_FLAGS = {"local": [], "k8s": ["--image=python"], "slurm": [], "ray": []}


@pytest.mark.slow
@pytest.mark.parametrize("engine", engines.ENGINES)
def test_every_engine_runs_a_sweep_or_says_what_is_missing(engine, tmp_path):
    process = command_line("sweep", *options.words(("classifier", ""), {}), "--seeds=2", f"--engine={engine}", *ENGINE_FLAGS[engine],
                           f"--workdir={tmp_path / 'sweep'}", timeout=300)  # fmt: skip
    missing = {"slurm": importlib.util.find_spec("submitit") is None or not shutil.which("sbatch"), "ray": importlib.util.find_spec("ray") is None}
    if missing.get(engine):
        assert process.returncode == 1 and process.stderr.startswith("error: ") and len(process.stderr.splitlines()) == 1, process.stderr
    else:
        assert process.returncode == 0, process.stderr
        assert (tmp_path / "sweep" / ("k8s.yaml" if engine == "k8s" else "rows.csv")).exists() or engine == "k8s"


# -- data sets that lie on the disk of whoever has them


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in REAL if name not in ("cifar10",)])
def test_every_real_data_set(name, tmp_path, real_data, forget):
    base = {"image": ("gan", "mlp"), "text": RNN, "pairs": SEQ}[REAL[name]]
    more = {"image": {}, "text": {"data.length": 256}, "pairs": {"data.tokenizer": "bpe", "data.vocabulary": 400, "data.length": 64}}[REAL[name]]
    values = {"data.name": name, "data.path": "", "model.context": 256} | more
    values = {k: v for k, v in values.items() if k != "model.context" or base == SEQ}
    whole(tmp_path / "run", base, values, drawn=first_sampler)


@pytest.mark.slow
@pytest.mark.parametrize("languages", next(key for key in keys.DATA if key.name == "data.languages").allowed)
def test_every_pair_of_languages(languages, tmp_path, real_data, forget):
    values = {"data.name": "multi30k", "data.languages": languages, "data.length": 120, "model.context": 400, "data.path": ""}
    whole(tmp_path / "run", SEQ, values, resumed=False, drawn=lambda path: [])
