"""Random faults through the launcher: each ends in a one-line error or is harmless.

There are three kinds of faults: a wrong value of any key of any shipped config, damage
to any JSON file of a run or a sweep, and damage to a data file. A command ends within
`CPU` seconds of processor time without a traceback; a command that succeeds on a
damaged file reports the damage or has the same results as without it. The fast tier
runs some of the cases, the slow tier all of them.
"""

import collections
import contextlib
import json
import random
import shutil
import traceback
import zlib
from pathlib import Path

import numpy as np
import pytest
from fuzzing import DAMAGES, WRONG_VALUES, cross, damage, flip, time_limit, untimed
from helpers import DATA, ROOT, bound_memory, command_line
from option_runs import one_program
from tiny_configs import SMALL_RUN, TEXT, VAE

from aigc_jax.cli import main as cli
from aigc_jax.sweeps.engines.base import EXIT_REFUSED
from aigc_jax.training import config as configs
from aigc_jax.training import config_files
from aigc_jax.training import train as training
from aigc_jax.training.loop import Loop

SEED = 20261128
CPU, WALL = 10, 60  # seconds
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
PROCESSES = 30  # number of cases that run as real processes
FAST = dict(config=24, run=8, data=12)
SLOW = dict(config=640, run=150, sweep=50, data=160)


def cases(*counts):
    """Parametrize `count`: the number of cases in the fast and in the slow tier."""
    fast, slow = counts
    return pytest.mark.parametrize("count", [fast, pytest.param(slow, marks=pytest.mark.slow)])


class Outcome(collections.namedtuple("Outcome", "code out err")):
    """Exit code and output of a command."""

    def check(self, refused=1):
        """Assert success, or an error message with the exit code `refused`."""
        assert self.code in (0, refused), (self.code, self.err[-1000:])
        assert "Traceback" not in self.err, self.err[-1000:]
        if self.code:
            last = self.err.rstrip("\n").rpartition("\n")[2]
            assert last.startswith("error: ") and len(last) < 2000, self.err[-1000:]


def call(capsys, *words) -> Outcome:
    """Run a command; an exception or a hang becomes an AssertionError."""
    capsys.readouterr()
    try:
        with time_limit(CPU, WALL):
            code = cli.main([str(word) for word in words])
    except AcceptedError:
        raise
    except BaseException as error:  # also HangError and SystemExit
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise AssertionError(f"{type(error).__name__}: {str(error)[:300]} ({where.name})") from None
    outcome = Outcome(code, *capsys.readouterr())
    outcome.check(EXIT_REFUSED if words[0] == "group" else 1)
    return outcome


class Cases:
    """Counts the outcomes of cases, and collects all faults in one message."""

    def __init__(self, chosen):
        self.chosen, self.seen, self.faults = chosen, collections.Counter(), []

    def run(self, check):
        """Call `check(number, case)`, which returns the outcome of a case, for each
        case; an AssertionError is a fault.
        """
        for number, case in enumerate(self.chosen):
            bound_memory()
            try:
                self.seen[check(number, case)] += 1
            except AssertionError as error:
                self.faults.append(f"{case}: {error}")
        print(f"{len(self.chosen)} cases: {dict(self.seen)}")
        assert not self.faults, f"{len(self.faults)} faults\n" + "\n\n".join(self.faults)


# -- keys of configs


class AcceptedError(BaseException):
    """The config, which this error carries, passed every check before training."""


def key_cases(count, rng, data_sets=None):
    """Draw (config, key, kind) such that each key and each kind of value occurs."""
    holders = collections.defaultdict(list)
    for path in CONFIGS:
        config = config_files.load(path)
        for key in (
            configs.flatten_config(config)
            if config.data.name in (data_sets or [config.data.name])
            else ()
        ):
            holders[key].append(path)
    pairs = cross(list(holders), list(WRONG_VALUES), count, rng)
    return [(rng.choice(holders[key]), key, kind) for key, kind in pairs]


def equals_written_value(text: str, value) -> bool:
    """Whether a config's value equals the text on the command line."""
    if isinstance(value, bool):
        return text in {True: ("True", "true", "1"), False: ("False", "false", "0")}[value]
    if isinstance(value, str):
        return value == text or value == f"{text} steps"
    if isinstance(value, tuple):
        return not text or str(value[0]) in text
    return float(text) == float(value)


@pytest.fixture
def accepted(monkeypatch, tmp_path):
    """`train` raises AcceptedError before the first step; data sets are loaded once."""
    known, load = {}, training.data.load
    shipped = {config_files.load(path).data.to_json(sort_keys=True) for path in CONFIGS}

    def load_once(section, *rest):
        key = section.to_json(sort_keys=True)
        if key not in known:  # loading an undamaged data set may take long
            with untimed() if key in shipped else contextlib.nullcontext():
                known[key] = load(section, *rest)
        return known[key]

    def begin(programs, trials, *rest):
        raise AcceptedError(trials[0].config)

    monkeypatch.setattr(training.data, "load", load_once)
    monkeypatch.setattr(training, "train", begin)
    monkeypatch.setenv("AIGC_DATA_DIR", str(DATA))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@cases(FAST["config"], SLOW["config"])
def test_wrong_config_values_are_refused_or_stored_as_written(count, capsys, tmp_path, accepted):
    def check(number, case):
        path, key, kind = case
        workdir, wrong = tmp_path / str(number), WRONG_VALUES[kind]
        try:
            words = ("train", f"--config={path}", f"--workdir={workdir}", f"--config.{key}={wrong}")
            assert call(capsys, *words).code == 1, "trained without a call of the loop"
            return "refused"
        except AcceptedError as error:
            value = configs.flatten_config(error.args[0])[key]
            assert equals_written_value(wrong, value), f"{wrong!r} became {value!r}"
            return "accepted"
        finally:
            shutil.rmtree(workdir, ignore_errors=True)

    # data sets that load fast
    quick = ("digits", "ring", "grid") if count == FAST["config"] else None
    chosen = key_cases(count, random.Random(SEED), quick)
    assert {kind for _, _, kind in chosen} == set(WRONG_VALUES)
    Cases(chosen).run(check)


# -- files of runs and sweeps

TINY = (
    SMALL_RUN
    | VAE
    | {"metrics": (), "steps": 16, "best_metric": "valid/neg_elbo", "run.samples": 4}
)
LANGUAGE = (
    SMALL_RUN
    | TEXT
    | {
        "steps": 16,
        "model.layers": 1,
        "model.heads": 2,
        "model.kv_heads": 2,
        "model.width": 16,
        "model.context": 16,
        "data.tokenizer": "words",
        "data.name": "text",
    }
)


def flags(overrides):
    return [f"--config.{key}={value}" for key, value in overrides.items()]


RUNS = ("vae", "vae_half", "lm", "lm_half")  # _half: interrupted at half
FAST_RUNS = RUNS[:2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(name of RUNS) -> its directory; the run is trained at its first use."""
    folder = tmp_path_factory.mktemp("runs")
    words = random.Random(0).choices(["red", "green", "blue", "Tür", "秦川", "\n\n"], k=4000)
    (folder / "text.txt").write_text(" ".join(words))
    language = LANGUAGE | {"data.path": folder / "text.txt"}
    kinds = {"vae": ("vae_digits", TINY), "lm": ("gpt_shakespeare_cpu", language)}

    def path_of(name):
        kind, _, half = name.partition("_")
        path = folder / name
        if half and not path.exists():
            shutil.copytree(path_of(kind), path)
            shutil.rmtree(path / "checkpoints/16")
        elif not path.exists():
            file, overrides = kinds[kind]
            words = ["train", f"--config={ROOT / 'configs' / file}.py", f"--workdir={path}"]
            with one_program():
                assert cli.main([*words, *flags(overrides)]) == 0
        return path

    return path_of


def verbs(name, workdir, out):
    """Yield the commands that read a run."""
    yield "train", "train", f"--workdir={workdir}"
    if not name.endswith("_half"):
        yield "evaluate", "evaluate", f"--workdir={workdir}"
        more = ("--prompt=red", "--tokens=4") if name == "lm" else ()
        file = out.with_suffix(".txt" if name == "lm" else ".npy")
        yield "sample", "sample", f"--workdir={workdir}", "--num=2", f"--out={file}", *more
        yield "compare", "compare", workdir, workdir, f"--out={out.with_suffix('.png')}"


def result_of(verb, workdir, out):
    """Rows and samples that a command wrote, in which unreported damage shows."""
    files = [*[workdir / "rows.jsonl"] * (verb == "train"), *out.parent.glob(out.name + ".*")]
    return {
        path.suffix: path.read_bytes() for path in files if path.exists() and path.suffix != ".png"
    }


def run_cases(runs, count, rng, names=RUNS):
    """Draw (run, file, damage, command) such that each file and each damage occurs."""
    read = []
    for name in names:
        path = runs(name)
        number = len(list(verbs(name, path, path)))
        found = sorted(p for p in path.rglob("*") if p.suffix in (".json", ".jsonl"))
        read += [(name, p.relative_to(path).as_posix(), i) for p in found for i in range(number)]
    return [
        (name, file, kind, i) for (name, file, i), kind in cross(read, list(DAMAGES), count, rng)
    ]


@cases(FAST["run"], SLOW["run"])
def test_damaged_run_files_are_refused_reported_or_harmless(count, capsys, tmp_path, runs):
    rng, expected = random.Random(SEED), {}

    def result(number, name, which, file=None, kind=None):
        """(exit code, whether the file is named, output) of a command on a copy."""
        workdir, out = tmp_path / name, tmp_path / f"out{number}"
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(runs(name), workdir)
        if file:
            damage(workdir / file, kind, rng)
        verb, *words = list(verbs(name, workdir, out))[which]
        outcome = call(capsys, *words)
        said = outcome.err + outcome.out
        named = file and any(part in said for part in (file, Path(file).parent.as_posix() + " "))
        made = outcome.out.replace(out.name, "out"), result_of(verb, workdir, out)
        return outcome.code, named, made

    def check(number, case):
        name, file, kind, which = case
        if (name, which) not in expected:
            code, _, expected[name, which] = result(f"{number}_whole", name, which)
            assert code == 0, "the undamaged run is refused"
        code, named, made = result(number, name, which, file, kind)
        same = made == expected[name, which]
        assert code or named or same, "damage was used in silence"
        return "refused" if code else "no difference" if same else "named"

    names = FAST_RUNS if count == FAST["run"] else RUNS
    chosen = run_cases(runs, count, random.Random(SEED), names)
    assert {kind for _, _, kind, _ in chosen} == set(DAMAGES)
    with one_program():  # one for each config, damaged or not
        Cases(chosen).run(check)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep of two programs of two trials: one finished, one interrupted."""
    path = tmp_path_factory.mktemp("sweeps") / "sweep"
    shared = {key: value for key, value in TINY.items() if key != "latent_dims"} | {
        "best_metric": ""
    }
    words = [
        "sweep",
        f"--config={ROOT / 'configs/vae_digits.py'}",
        f"--workdir={path}",
        "--grid",
        "latent_dims=(3,),(4,)",
        "--seeds=2",
        *flags(shared),
    ]
    assert cli.main([*words, "--engine=k8s", "--image=none"]) == 0  # groups, not run
    finished, interrupted = sorted((path / "groups").iterdir())
    assert cli.main(["group", f"--workdir={finished}", "--route=vmap"]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "evaluate_split", interrupt_at_test(Loop.evaluate_split))
        with pytest.raises(KeyboardInterrupt):
            cli.main(["group", f"--workdir={interrupted}", "--route=vmap"])
    return path


def interrupt_at_test(evaluate):
    """Return `Loop.evaluate_split`, interrupted where the test split is evaluated."""

    def interrupted(loop, split):
        if split == "test":
            raise KeyboardInterrupt
        return evaluate(loop, split)

    return interrupted


def sweep_cases(sweep, count, rng):
    """Draw (command, file, damage): `figure` reads all trials, `group` resumes one."""
    read = [
        (command, p.relative_to(sweep).as_posix())
        for p in sorted(sweep.rglob("*"))
        if p.suffix in (".json", ".jsonl")
        for command in ("figure", "group")
    ]
    return [(*left, kind) for left, kind in cross(read, list(DAMAGES), count, rng)]


@pytest.mark.slow
def test_damaged_sweep_files_are_refused_reported_or_harmless(capsys, tmp_path, sweep):
    rng, workdir = random.Random(SEED), tmp_path / "sweep"
    interrupted = sorted((sweep / "groups").iterdir())[-1].relative_to(sweep)
    members = json.loads((sweep / interrupted / "group.json").read_text())["members"]

    def result(command, file=None, kind=None):
        """The outcome of a command, and the rows of the trials that `group` trains."""
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(sweep, workdir)
        if file:
            damage(workdir / file, kind, rng)
        where = workdir / (interrupted if command == "group" else "")
        outcome = call(capsys, command, f"--workdir={where}")
        rows = [workdir / "trials" / member["id"] / "rows.jsonl" for member in members]
        made = [p.read_bytes() for p in rows if p.exists() and command == "group"]
        return outcome, (outcome.out, made)

    def check(number, case):
        command, file, _ = case
        outcome, made = result(*case)
        same = made == expected[command]
        parts = (file, Path(file).parent.name, Path(file).name)
        named = any(part in outcome.err + outcome.out for part in parts)
        assert outcome.code or named or same, "damage was used in silence"
        return "refused" if outcome.code else "no difference" if same else "named"

    expected = {}
    for command in ("figure", "group"):
        outcome, expected[command] = result(command)
        assert outcome.code == 0, outcome.err
    Cases(sweep_cases(sweep, SLOW["sweep"], random.Random(SEED))).run(check)


# -- files of data


def write_data(folder):
    """{data set: path} of a small file or folder in each format of users' data."""
    from PIL import Image

    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (40, 8, 8, 3), np.uint8)
    np.savez(folder / "arrays.npz", x=pictures, y=np.arange(40) % 4)
    for i, (pixels, kind) in enumerate(
        zip(pictures, ("png", "jpg", "webp", "bmp", "gif") * 8, strict=True)
    ):
        path = folder / "images" / f"class{i % 2}" / f"{i}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    words = [" ".join(rng.choice(["red", "green", "blue", "Tür", "秦川"], 9)) for _ in range(60)]
    (folder / "text.txt").write_text("\n\n".join(words))
    (folder / "pairs.tsv").write_text("".join(f"{w}\t{w[::-1]}\n" for w in words))
    (folder / "tokens").mkdir()
    for split in ("train", "val"):
        rng.integers(0, 50, 600).astype(np.uint16).tofile(folder / "tokens" / f"{split}.bin")
    return {
        "npz": folder / "arrays.npz",
        "folder": folder / "images",
        "text": folder / "text.txt",
        "pairs": folder / "pairs.tsv",
        "tokens": folder / "tokens",
    }


@cases(FAST["data"], SLOW["data"])
def test_damaged_data_files_are_read_or_refused_without_traceback(
    count, capsys, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng, whole, copy = random.Random(SEED), tmp_path / "whole", tmp_path / "copy"
    whole.mkdir()
    paths = write_data(whole)

    def check(number, case):
        name, kind, _ = case
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy)
        path = copy / paths[name].relative_to(whole)
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        damage(rng.choice(files), kind, rng)
        size = ["--size=8"] if name == "folder" else []
        words = (
            "data",
            f"--name={name}",
            f"--path={path}",
            f"--out={tmp_path / 'sheet.png'}",
            *size,
        )
        return name, ("read", "refused")[call(capsys, *words).code]

    kinds = [(kind, i) for i in range(count) for kind in DAMAGES if kind != "deleted"]
    chosen = cross(list(paths), kinds, count, random.Random(SEED))
    Cases([(name, *kind) for name, kind in chosen]).run(check)


# -- real processes


@pytest.mark.slow
def test_faults_in_subprocesses_end_without_traceback(tmp_path, runs):
    """Thirty of the cases, each in a process of its own as for users."""
    rng = random.Random(SEED + 1)

    def check(number, case):
        if len(case) == 3:
            path, key, kind = case
            words = ["list", f"--config={path}", f"--config.{key}={WRONG_VALUES[kind]}"]
        else:
            name, file, kind, which = case
            workdir = tmp_path / f"run{number}"
            shutil.copytree(runs(name), workdir)
            damage(workdir / file, kind, rng)
            _, *words = list(verbs(name, workdir, tmp_path / f"out{number}"))[which]
        done = command_line(*words, timeout=120)
        Outcome(done.returncode, done.stdout, done.stderr).check()
        return ("accepted", "refused")[done.returncode]

    half = PROCESSES // 2
    Cases(key_cases(half, rng) + run_cases(runs, PROCESSES - half, rng)).run(check)


def test_flip_changes_one_byte_and_is_reproducible():
    rng = random.Random(0)
    for data in (b'{"a": 1}', b"\0\1\2", bytes(range(200))):
        new = flip(data, rng)
        assert len(new) == len(data) and sum(a != b for a, b in zip(data, new, strict=True)) == 1
    assert zlib.crc32(flip(b"12", random.Random(1))) == zlib.crc32(flip(b"12", random.Random(1)))
