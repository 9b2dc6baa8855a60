"""Every entry of the tables of metrics, samplers, decoding flags, hardware and engines;
groups of trials, several devices, and real data sets.
"""

import importlib
import importlib.util
import io
import shutil

import options
import pytest
from helpers import command_line
from option_runs import (
    RNN,
    ROWS,
    call,
    check_run,
    done,
    evaluate,
    finite,
    first_sampler,
    name_of,
    precision_of,
    refused,
    rows_of,
    rows_of_each_base,
    train,
)
from options import BASES, LM, REAL, SEQ

import aigc_jax
from aigc_jax.cli import main as cli
from aigc_jax.data import schema as data_schema
from aigc_jax.metrics import EXTRACTED, METRICS
from aigc_jax.sweeps import engines
from aigc_jax.sweeps.sweep import Sweep
from aigc_jax.sweeps.trials import make_trials
from aigc_jax.training import config as configs
from aigc_jax.training import config_files, costs
from aigc_jax.training.run_dir import RunDir

pytestmark = pytest.mark.usefixtures("option_files")

# -- metrics, samplers, decoding, engines


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(base, values) -> the directory of the run, trained at its first use."""
    found = {}

    def run(base, values=None):
        key = repr((base, values))
        if key not in found:
            found[key] = tmp_path_factory.mktemp("options") / "run"
            train(found[key], base, values or {})
        return found[key]

    return run


@pytest.mark.slow
def test_every_feature_metric_evaluates(runs, tmp_path, monkeypatch):
    """Uses a classifier of one step; stacked_modes needs digits in three channels."""
    from aigc_jax.training import feature_extractors

    monkeypatch.setenv("AIGC_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(
        feature_extractors,
        "CLASSIFIERS",
        {name: (data, "1 step") for name, (data, _) in feature_extractors.CLASSIFIERS.items()},
    )
    feature_extractors.load_or_train_classifier.cache_clear()
    try:
        evaluate(
            runs(("gan", "mlp"), {"gan.condition": "projection"}),
            [name for name in EXTRACTED if name != "stacked_modes"],
        )
        refused(
            ["evaluate", f"--workdir={runs(('gan', 'mlp'))}", "--metrics=stacked_modes"], "three"
        )
    finally:
        feature_extractors.load_or_train_classifier.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES, ids=str)
def test_every_metric_of_every_base_evaluates_or_is_a_one_line_error(base, runs):
    path = runs(base)
    for name in (name for name in METRICS if name not in EXTRACTED):
        code, _, err = call("evaluate", f"--workdir={path}", f"--metrics={name}", "--num=16")
        assert code == 0 or (
            code == 1 and err.startswith("error: ") and len(err.splitlines()) == 1
        ), (name, err)


# decoding flag of `sample` -> values
DECODING = {
    "temperature": (0, 0.7),
    "top_k": (1, 5),
    "top_p": (1e-9, 0.9),
    "min_p": (0.5,),
    "repetition": (1.3,),
    "tokens": (1, 9),
    "prompt": ("Line 3",),
    "prompt_file": (options.FILES / "texts" / "one.txt",),
    "interactive": (),
    "num": (1, 3),
    "seed": (0, 5),
}
# split, inception: tests/inference/test_run.py; latent, input: test_app.py
OTHER_FLAGS = {
    *("workdir", "checkpoint", "out", "what", "label", "split", "latent", "input"),
    *("inception", "help"),
}


def test_every_flag_of_sample_is_tested():
    flags = {action.dest for action in cli.make_parser()[1]["sample"]._actions}
    assert flags == DECODING.keys() | OTHER_FLAGS


@pytest.mark.parametrize(
    "base",
    [pytest.param(LM, id="transformer"), pytest.param(RNN, id="recurrent", marks=pytest.mark.slow)],
)
def test_every_decoding_flag_generates_text(base, runs, monkeypatch):
    run = aigc_jax.load(runs(base))
    monkeypatch.setattr("aigc_jax.inference.load.load", lambda *_: run)
    write = lambda *words: done("sample", f"--workdir={run.dir.path}", "--tokens=4", *words)
    monkeypatch.setattr("sys.stdin", io.StringIO("Line 1\nLine 2\n"))
    texts = {
        flag: [write(f"--{flag}={value}") for value in values]
        for flag, values in DECODING.items()
        if values
    }
    texts["interactive"] = [write("--interactive")]
    assert all(text.endswith("\n") for found in texts.values() for text in found)
    assert len(texts["tokens"][0]) < len(texts["tokens"][1]) and texts["prompt"][0].startswith(
        "Line 3"
    )
    # each of these flags selects the most probable token
    assert texts["temperature"][0] == texts["top_k"][0] == texts["top_p"][0]
    assert texts["num"][1].count("----") == 2 and texts["seed"][0] != texts["seed"][1]


@pytest.mark.slow
def test_seq2seq_sample_answers_a_prompt_and_interactive_lines(runs, monkeypatch):
    path = runs(SEQ)
    assert len(done("sample", f"--workdir={path}", "--prompt=1234").splitlines()) == 1
    monkeypatch.setattr("sys.stdin", io.StringIO("12\n34\n"))
    assert done("sample", f"--workdir={path}", "--interactive").count("\n") >= 2


@pytest.mark.slow
def test_plan_lists_every_hardware(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    table = done(
        "plan", *options.words(("vae", "mlp"), {}), f"--hardware={','.join(costs.HARDWARE)}"
    )
    assert all(
        hardware.name.split()[-1] in table or name in table
        for name, hardware in costs.HARDWARE.items()
    )


# -- groups of trials, devices, processes


def group_of(path, base, values, route, seeds=(0, 1)) -> list[RunDir]:
    """Train trials that differ only in their seeds as one program."""
    config = config_of(base, values)
    sweep = Sweep(path)
    sweep.add_trials(make_trials(config, [{"seed": seed} for seed in seeds]), "test")
    for group in sweep.groups():
        assert call("group", f"--workdir={group.path}", f"--route={route}")[0] == 0
    return [RunDir(sweep.trial_dir(t["id"]).path) for t in sweep.read_sweep_json()["trials"]]


def config_of(base, values):
    given, (file,) = cli.split_overrides(options.words(base, values))
    return configs.override(config_files.load(file.removeprefix("--config=")), given)


def same_rows(one, other, tolerance):
    """Assert equal steps and splits, and values equal up to `tolerance`; an accuracy up
    to one of the 16 examples, whose logit may be next to the boundary.
    """
    assert [(r["step"], r["split"]) for r in one] == [(r["step"], r["split"]) for r in other]
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"split"}:
            allowed = max(tolerance, 1 / 16) if "accuracy" in key else tolerance
            assert a[key] == pytest.approx(b[key], rel=tolerance, abs=allowed), (
                key,
                a["step"],
                a["split"],
            )


COARSE = ("bfloat16", "bfloat16_all")


@pytest.mark.slow
@pytest.mark.parametrize("base, number", rows_of_each_base)
def test_rows_in_groups_and_on_two_devices_match_a_single_run(base, number, tmp_path, forget):
    """The metrics of a trial in a group, and of a run on two devices, equal those of a
    single run up to rounding.
    """
    rows = rows_of(base)
    assert len(rows) <= ROWS
    if number >= len(rows):
        return
    row = rows[number]
    print(name_of(row))
    values = row[1] | {"run.mesh.data": 1, "run.mesh.model": 1, "run.data_placement": "device"}
    tolerance = 0.2 if values.get("precision") in COARSE or values.get("optimizer_dtype") else 2e-2
    with precision_of(values):
        alone = train(tmp_path / "alone", base, values)
        finite(alone)
        trials = group_of(
            tmp_path / "group", base, values, "vmap" if len(name_of(row)) % 2 else "map"
        )
        for trial in trials:
            finite(trial.read_rows())
        same_rows(trials[0].read_rows(), alone, tolerance)
        # Each device draws the dropout masks of its part of a batch.
        if not values.get("model.dropout"):
            same_rows(
                train(tmp_path / "devices", base, values | {"run.mesh.data": 2}), alone, tolerance
            )


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES, ids=lambda base: "-".join(filter(None, base)))
def test_every_base_trains_in_a_subprocess(base, tmp_path):
    """One run of each method is also evaluated and sampled."""
    values = rows_of(base)[0][1] | {"precision": "float32", "run.mesh.data": 1, "run.mesh.model": 1}
    path = tmp_path / "run"
    first = next(other for other in BASES if other[0] == base[0]) == base
    what = "reconstruction" if base[0] == "vqvae" else ""
    looked_at = (["evaluate"], ["sample", f"--what={what}"]) if first else ()
    for words in (["train", *options.words(base, values)], *looked_at):
        words = [word for word in words if word != "--what="]
        process = command_line(*words, f"--workdir={path}", timeout=300)
        assert process.returncode == 0 or base[0] == "classifier", process.stderr
    finite(RunDir(path).read_rows())


ENGINE_FLAGS = {"local": [], "k8s": ["--image=python"], "slurm": [], "ray": []}


@pytest.mark.slow
@pytest.mark.parametrize("engine", engines.ENGINES)
def test_every_engine_runs_a_sweep_or_is_a_one_line_error(engine, tmp_path):
    process = command_line(
        "sweep",
        *options.words(("classifier", ""), {}),
        "--seeds=2",
        f"--engine={engine}",
        *ENGINE_FLAGS[engine],
        f"--workdir={tmp_path / 'sweep'}",
        timeout=300,
    )
    missing = {
        "slurm": importlib.util.find_spec("submitit") is None or not shutil.which("sbatch"),
        "ray": importlib.util.find_spec("ray") is None,
    }
    if missing.get(engine):
        assert (
            process.returncode == 1
            and process.stderr.startswith("error: ")
            and len(process.stderr.splitlines()) == 1
        ), process.stderr
    else:
        assert process.returncode == 0, process.stderr
        assert (
            tmp_path / "sweep" / ("k8s.yaml" if engine == "k8s" else "rows.csv")
        ).exists() or engine == "k8s"


# -- real data sets, where the user has them on disk


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in REAL if name not in ("cifar10",)])
def test_runs_on_real_data_sets(name, tmp_path, real_data, forget):
    base = {"image": ("gan", "mlp"), "text": RNN, "pairs": SEQ}[REAL[name]]
    more = {
        "image": {},
        "text": {"data.length": 256},
        "pairs": {"data.tokenizer": "bpe", "data.vocabulary": 400, "data.length": 64},
    }[REAL[name]]
    values = {"data.name": name, "data.path": "", "model.context": 256} | more
    values = {k: v for k, v in values.items() if k != "model.context" or base == SEQ}
    check_run(tmp_path / "run", base, values, drawn=first_sampler)


@pytest.mark.slow
@pytest.mark.parametrize(
    "languages", next(key for key in data_schema.DATA if key.name == "data.languages").allowed
)
def test_runs_on_every_language_pair(languages, tmp_path, real_data, forget):
    values = {
        "data.name": "multi30k",
        "data.languages": languages,
        "data.length": 120,
        "model.context": 400,
        "data.path": "",
    }
    check_run(tmp_path / "run", SEQ, values, resumed=False, drawn=lambda path: [])
