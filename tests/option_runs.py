"""Rows of options, and complete runs of them through the launcher."""

import contextlib
import functools
import io
import json
import math
import shutil
from pathlib import Path

import jax
import numpy as np
import options
import pytest
import runs
from covering import cover, met, pairs
from options import BASES, allowed, axes, default

import aigc_jax
from aigc_jax.cli import main as cli
from aigc_jax.inference import run as loads
from aigc_jax.inference import train as trains
from aigc_jax.metrics import EXTRACTED, METRICS
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.run_dir import RunDir
from aigc_jax.training.serialization import digest_leaves

RNN = ("lm", "recurrent")


def usual(base):
    return default(base)[1]


@functools.cache
def problem() -> dict:
    return {base: axes(base, quick=True) for base in BASES}


def slow_to_compile(base) -> int:
    """The cost of a base; where several bases of a method are suitable, the cheapest is
    taken.
    """
    return {("gan", "dcgan"): 1, ("gan", "resnet"): 2, ("vae", "conv"): 1}.get(base, 0)


@functools.cache
def first_rows() -> list:
    """Rows that contain every option: the part of the design that `make test` runs. A
    row has at most one second derivative, one of the slowest base none.
    """
    most = lambda base: 0 if slow_to_compile(base) > 1 else 1
    seconds = lambda values: options.second_derivatives(values) * values.get("critic_steps", 1)
    quick = lambda base, values: allowed(base, values) and seconds(values) <= most(base)
    every = {frozenset([("base", base)]) for base in BASES}
    every |= {
        frozenset([(axis, value)])
        for found in problem().values()
        for axis, values in found.items()
        for value in values
    }
    return cover(problem(), every, quick, usual, tries=6, cost=slow_to_compile)


@functools.cache
def further_rows() -> list:
    """Rows that contain, together with `first_rows`, every pair of options."""
    wanted = pairs(problem(), allowed) - met(first_rows(), 2)
    return cover(problem(), wanted, allowed, usual, tries=12, cost=slow_to_compile)


def single_rows() -> list:
    """Each base with its usual values, and one row for each option that the covering
    design leaves out (large data sets), in the first base that has it.
    """
    rows = [(base, {}) for base in BASES]
    covered = {
        (axis, value)
        for options in problem().values()
        for axis, values in options.items()
        for value in values
    }
    for base in BASES:
        for item in ((axis, value) for axis, values in axes(base).items() for value in values):
            if (
                item not in covered
                and usual(base)[item[0]] != item[1]
                and allowed(base, usual(base) | dict([item]))
            ):
                covered.add(item)
                rows.append((base, dict([item])))
    return rows


@functools.cache
def rows_of(base) -> list:
    """Rows that contain every option of one base; at most ROWS."""
    one = {base: axes(base, quick=True)}
    return cover(
        one,
        {frozenset([(axis, value)]) for axis, values in one[base].items() for value in values},
        allowed,
        usual,
        tries=20,
    )


def name_of(row) -> str:
    base, values = row
    return f"{'-'.join(filter(None, base))}: " + ", ".join(
        f"{a}={v}" for a, v in values.items() if v != usual(base)[a]
    )


ROWS = 9
rows_of_each_base = [
    pytest.param(base, number, id=f"{'-'.join(filter(None, base))}-{number}")
    for base in BASES
    for number in range(ROWS)
]


def call(*words):
    """Run the launcher in this process; return (exit code, stdout, stderr)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def done(*words) -> str:
    """Run a command that must succeed; return its standard output."""
    code, out, err = call(*words)
    assert code == 0 and "Traceback" not in err, err
    return out


def refused(words, sentence):
    code, out, err = call(*words)
    assert (
        code == 1
        and out == ""
        and err.startswith("error: ")
        and len(err.splitlines()) == 1
        and "Traceback" not in err
    ), (out, err)
    assert sentence in err, err


def precision_of(values):
    """A context that enables float64 where a row needs it; JAX_ENABLE_X64 is read only
    at the start of a process.
    """
    return (
        jax.enable_x64(True) if values.get("precision") == "float64" else contextlib.nullcontext()
    )


def train(path, base, values, **more):
    done(
        "train",
        *options.words(base, values),
        f"--workdir={path}",
        *(f"--config.{k.replace('__', '.')}={v}" for k, v in more.items()),
    )
    return RunDir(path).read_rows()


def finite(rows):
    assert [row["step"] for row in rows if row["split"] == "train"] == [1, 2]
    assert {row["split"] for row in rows} == {"train", "valid", "test"}
    for row in rows:
        assert all(math.isfinite(v) for k, v in row.items() if k != "split"), row


def state_of(path) -> str:
    """A digest of the newest state."""
    with Checkpoints(Path(path) / "checkpoints") as checkpoints:
        return digest_leaves(checkpoints.read_newest_valid(print)[0])


def still(path) -> list[str]:
    """Names of the parameters that the second step did not change."""
    with Checkpoints(Path(path) / "checkpoints") as checkpoints:
        before, after = (checkpoints.read_verified(step)[0] for step in (1, 2))
    return [
        name for name in after if name.startswith("params/") and (before[name] == after[name]).all()
    ]


def resume(path, base, values):
    """Resume from the first step; the run must end with the same bytes."""
    rows, state = (path / "rows.jsonl").read_bytes(), state_of(path)
    shutil.rmtree(path / "checkpoints" / "2")
    train(path, base, values)
    assert (path / "rows.jsonl").read_bytes() == rows and state_of(path) == state


def samplers(path) -> list[str]:
    run = aigc_jax.load(path)
    return [
        *run.programs.method.samplers,
        *(["neighbours"] if "prior" in run.programs.method.samplers else []),
    ]


def sample(path, what):
    """Draw samples to an array, which must be finite, and to a picture or a text."""
    done("sample", f"--workdir={path}", f"--what={what}", "--num=4", f"--out={path / what}.npy")
    x = np.load(path / f"{what}.npy")
    assert len(x) == 4 and np.isfinite(x.astype(np.float64)).all()
    shown = path / f"{what}{'.txt' if aigc_jax.load(path).is_text else '.png'}"
    done("sample", f"--workdir={path}", f"--what={what}", "--num=4", f"--out={shown}")
    assert shown.stat().st_size > (0 if shown.suffix == ".txt" else 500)


def metrics_of(base, values) -> list[str]:
    """The metrics without features that suit a row."""
    method, points = base[0], (usual(base) | values)["data.name"] in options.POINTS
    fits = {
        "modes": method in ("gan", "vae") and points,
        "nll": method == "vae",
        "variety": method == "lm",
        **dict.fromkeys(("bleu", "rouge"), method in ("seq2seq", "lm")),
        "bleu_greedy": method == "seq2seq",
    }
    return [
        name
        for name in METRICS
        if name not in EXTRACTED and fits.get(name, method in ("gan", "vae") and not points)
    ]


def evaluate(path, names):
    """Run `evaluate --metrics`; the stored values must be finite, at least one for each
    name.
    """
    done(
        "evaluate",
        f"--workdir={path}",
        *([f"--metrics={','.join(names)}"] if names else []),
        "--num=24",
    )
    row = json.loads((path / "evaluations.jsonl").read_text().splitlines()[-1])
    numbers = {k: v for k, v in row.items() if isinstance(v, float)}
    assert len(numbers) >= len(names) and all(map(math.isfinite, numbers.values())), numbers
    signed = {name for name in names if name in ("bleu", "bleu_greedy", "variety")}
    assert {k for k in row if k.endswith("_signature")} == {f"{name}_signature" for name in signed}


@contextlib.contextmanager
def one_program():
    """Commands within this context share the compiled programs of a run, which are
    dropped at its end since they also hold the data.
    """
    before = set(runs._programs)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for module in (trains, loads):
                patch.setattr(module, "Programs", runs.shared_programs)
            yield
    finally:
        for key in runs._programs.keys() - before:
            del runs._programs[key]


def check_run(path, base, values, resumed=True, drawn=samplers):
    """Train, resume, evaluate and sample a run."""
    with precision_of(values), one_program():
        finite(train(path, base, values))
        if resumed:
            resume(path, base, values)
        evaluate(path, metrics_of(base, values))
        for what in drawn(path):
            sample(path, what)


def first_sampler(path):
    return samplers(path)[:1]
