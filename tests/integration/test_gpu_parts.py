"""`make gpu`: its table of parts, resuming, limits and the page; on the CPU."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, environment

from aigc_jax.utils.python_files import import_python_file

BENCHMARKS = ROOT / "benchmarks"
SCRIPT = BENCHMARKS / "gpu_parts.py"
GPU = "NVIDIA H100 80GB HBM3"
ABOUT = dict(gpu=GPU, package="0123456789ab", commit="abc1234", jax="0.10.2", torch="2.13.0")


@pytest.fixture
def parts(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT)])
    return import_python_file(SCRIPT, "script")


def python_part(parts, name, code, **more):
    return parts.Part(name, f"what {name} is", ("-c", code), small=(), **more)


def statuses(parts, path):
    return [(row["part"], row["status"]) for row in parts.read_rows(path)]


def run_script(*words):
    command = [sys.executable, SCRIPT, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment())


def test_parts_have_unique_names_limits_and_existing_files(parts):
    names = [part.name for part in parts.PARTS]
    assert len(names) == len(set(names))
    for part in parts.PARTS:
        assert part.answers and 0 < part.limit <= 540
        files = [word for word in part.command if word.startswith(("benchmarks/", "tests/"))]
        assert files, part.name
        assert all((ROOT / file).exists() for file in files), part.name


def test_every_benchmark_has_a_part_and_a_goal(parts):
    bench = import_python_file(BENCHMARKS / "bench.py", "script")
    names = {part.name for part in parts.PARTS}
    assert set(bench.find_cases()) <= names
    for case, (_, sides, goal) in parts.gpu.CASES.items():
        assert "ours" in sides and ("pytorch_compiled" in sides or goal >= 5), case


def test_finished_parts_are_not_repeated_and_others_are(parts, tmp_path, capsys):
    count = lambda name: (
        (tmp_path / name).read_text().count("x") if (tmp_path / name).exists() else 0
    )
    note = "open({!r}, 'a').write('x');"
    ended, failing = (note.format(str(tmp_path / name)) for name in ("ended", "failing"))
    table = [
        python_part(parts, "ended", ended + "print('{\"answer\": 42}')"),
        python_part(parts, "failing", failing + "raise SystemExit('no such kernel')"),
        python_part(parts, "slow", "import time; time.sleep(60)", limit=1),
    ]
    path = tmp_path / "gpu.jsonl"
    for _ in range(2):
        assert parts.run_parts(table, path, ABOUT, small=True, again=False) == 2
    assert count("ended") == 1 and count("failing") == 2
    assert statuses(parts, path) == [
        ("ended", "finished"),
        *[("failing", "failed"), ("slow", "cut off")] * 2,
    ]
    rows = parts.read_rows(path)
    assert rows[0]["rows"] == [{"answer": 42}] and "output" not in rows[0]
    assert rows[1]["exit_status"] == 1 and rows[1]["output"] == ["no such kernel"]
    assert rows[2]["exit_status"] is None and rows[2]["seconds"] >= 1
    assert "no such kernel" in capsys.readouterr().out
    for other in (dict(gpu="another"), dict(package="ba9876543210")):
        parts.run_parts(table[:1], path, ABOUT | other, small=True, again=False)
    parts.run_parts(table[:1], path, ABOUT, small=True, again=True)
    assert count("ended") == 4
    changed = table[0]._replace(command=(*table[0].command, "more"))
    assert not parts.is_finished(changed, parts.read_rows(path), ABOUT)


@pytest.mark.parametrize("damage", ['{"part": "b", "sta', '{"part": "b", "sta\n', "\0\0\0\0\n"])
def test_damaged_last_line_is_dropped(parts, tmp_path, damage):
    path = tmp_path / "gpu.jsonl"
    row = dict(ABOUT, part="a", status="finished", seconds=1.0, rows=[])
    parts.append_row(path, row)
    with open(path, "a") as file:
        file.write(damage)
    assert statuses(parts, path) == [("a", "finished")]
    parts.append_row(path, row | dict(part="c"))
    assert statuses(parts, path) == [("a", "finished"), ("c", "finished")]
    path.write_text("no row\n" + path.read_text())
    with pytest.raises(SystemExit, match="gpu.jsonl:1 is damaged"):
        parts.read_rows(path)


def is_running(pid):
    """Whether a process exists and is no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(") ")[2].startswith("Z"))


def test_limit_ends_the_processes_of_a_part(parts, tmp_path):
    note = tmp_path / "child"
    child = "import time; time.sleep(60)"
    code = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"open({str(note)!r}, 'w').write(str(child.pid))\n"
        "print('before the limit', flush=True)\ntime.sleep(60)"
    )
    begun = time.monotonic()
    status, seconds, output, _ = parts.run_command([sys.executable, "-c", code], 3, {})
    assert status is None and 3 <= seconds <= time.monotonic() - begun < 30
    assert output == "before the limit\n"
    assert wait_for_end(int(note.read_text()))


def wait_for_end(pid):
    """Whether a process ends within some seconds."""
    for _ in range(100):
        if not is_running(pid):
            return True
        time.sleep(0.1)
    return False


def test_page_shows_goals_times_and_failures(parts):
    bench = dict(
        case="gpt2",
        what="GPT-2",
        milliseconds=dict(ours=[10.0, 11.0, 12.0], pytorch_compiled=[13.0, 13.5, 14.0]),
        notes=dict(ours="route vmap, 64 at once"),
        failed=dict(pytorch_graphs="out of memory (exit status 1)"),
        tokens_per_s=dict(ours=1489454),
        goals=[["compiled PyTorch / ours", 1.227, 1.2], ["share of the peak", 0.41, 0.5]],
    )
    row = lambda part, status, *rows: dict(
        ABOUT, part=part, status=status, seconds=61.2, rows=[*rows]
    )
    rows = [
        row("gpt2", "failed"),
        row("gpt2", "finished", bench),
        row("tests_models", "finished", dict(tests="93 passed, 24 skipped")),
        row("device", "cut off", dict(kind=GPU, devices=1, versions=dict(jax="0.10.2"))),
        row("removed", "finished"),
        row("device", "finished") | dict(gpu="another GPU"),
    ]
    page = parts.make_page(rows)
    assert f"## {GPU}\n\njax 0.10.2, torch 2.13.0.\n" in page and "## another GPU" in page
    assert "| gpt2 | compiled PyTorch / ours | 1.23 | 1.2 | reached |" in page
    assert "| gpt2 | share of the peak | 0.41 | 0.5 | **missed** |" in page
    assert "| GPT-2 | 11 (10 - 12) | compiled 13.5, graphs failed | 1,489,454 tokens/s, " in page
    assert "| finished; tests 93 passed, 24 skipped | 61 | abc1234 |" in page
    assert f"| cut off; kind {GPU}, devices 1 |" in page
    assert "Not run: attention, trials_vae" in page and "removed" not in page


def test_committed_page_is_that_of_the_rows(parts):
    if parts.PAGE.exists() or parts.ROWS.exists():
        assert parts.PAGE.read_text() == parts.make_page(parts.read_rows(parts.ROWS))


def test_summaries_of_pytest_are_measured_rows(parts):
    output = "\n".join(
        [
            "..s [100%]",
            "2 passed, 1 skipped in 3.21s",
            "= 1 failed, 2 passed in 93.10s (0:01:33) =",
            "9 words",
            "{no json",
        ]
    )
    assert parts.find_measured(output) == [
        dict(tests="2 passed, 1 skipped"),
        dict(tests="1 failed, 2 passed"),
    ]


def test_without_gpu_the_command_is_refused(parts, tmp_path):
    if parts.gpu.gpu():
        pytest.skip("there is a GPU")
    for words in (["--part=device"], [f"--out={tmp_path / 'out'}"]):
        done = run_script(*words)
        assert done.returncode == 1 and not done.stdout
        assert done.stderr == (
            "error: nvidia-smi names no GPU; --small tries the parts out on the CPU\n"
        )
    done = run_script("--page", f"--out={tmp_path}")
    assert done.returncode == 1 and done.stderr.startswith("error: there are no rows yet")
    assert not list(tmp_path.iterdir())


FAKE_SIDE = """
import sys
side = next(word for word in sys.argv if word.startswith("--side=")).removeprefix("--side=")
if side == "pytorch_graphs":
    sys.exit("error: no graphs")
print("ready" + " route vmap" * (side == "ours"), flush=True)
for count, _ in enumerate(sys.stdin):
    if side == "pytorch_eager" and count:
        sys.exit(3)
    print(dict(ours=2.0).get(side, 3.0), flush=True)
"""


def test_failed_sides_are_named_and_others_timed(parts, monkeypatch, tmp_path, capfd):
    fake = tmp_path / "side.py"
    fake.write_text(FAKE_SIDE)
    monkeypatch.setattr(parts.gpu, "__file__", str(fake))
    row = parts.gpu.measure("mlp", rounds=2, seconds=0.1)
    assert row["milliseconds"] == dict(ours=[2.0, 2.0], pytorch_compiled=[3.0, 3.0])
    assert row["failed"] == dict(
        pytorch_eager="(exit status 3)", pytorch_graphs="error: no graphs (exit status 1)"
    )
    assert row["notes"] == dict(ours="route vmap")
    assert row["goals"] == [("compiled PyTorch / ours", 1.5, 1.2)]
    assert "pytorch_graphs: error: no graphs" in capfd.readouterr().err
    monkeypatch.setattr(parts.gpu, "STARTING", -1)
    assert parts.gpu.measure("mlp", 1, 0.1)["milliseconds"].keys() == {"ours", "pytorch_compiled"}


@pytest.mark.slow
def test_small_parts_run_on_the_cpu_and_resume(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    words = ("--small", f"--out={tmp_path}", "--part=device", "--part=attention", "--part=mlp")
    done = run_script(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert [row["part"] for row in rows] == ["device", "attention", "mlp"]
    assert rows[2]["rows"][0]["milliseconds"].keys() >= {"ours", "pytorch_compiled"}
    page = (tmp_path / "gpu.md").read_text()
    assert "no measurements" in page and "reached" not in page
    assert "3 of 3 parts are finished" in run_script(*words).stdout
    assert len((tmp_path / "gpu.jsonl").read_text().splitlines()) == 3
