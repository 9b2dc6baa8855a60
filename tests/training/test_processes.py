"""Real processes: killed at random times, preempted, sharing a directory, disk full.

`make test` simulates these cases in its own process: test_train, integration/test_kills
and integration/test_trust.
"""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT, command_line, environment, start_words
from runs import newest, run_state, wait_until
from tiny_configs import SMALL_RUN

from aigc_jax.cli import main as cli
from aigc_jax.training.run_dir import RunDir

# Wide networks, so that a save takes long enough to be interrupted.
WIDE = SMALL_RUN | {
    "model.g.widths": "(700,700)",
    "model.d.widths": "(500,)",
    "latent_dim": 8,
    "batch_size": 8,
    "run.log_every": "10 steps",
    "run.eval_every": "60 steps",
    "run.sample_every": "120 steps",
    "run.save_every": "40 steps",
    "steps": "600 steps",
}


def words(workdir, **more):
    overrides = [f"--config.{k}={v}" for k, v in (WIDE | more).items()]
    return [
        "train",
        f"--config={ROOT / 'configs/gan_digits.py'}",
        f"--workdir={workdir}",
        *overrides,
    ]


def start(workdir, **more):
    return subprocess.Popen(
        start_words(*words(workdir, **more)),
        env=environment(),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The uninterrupted run."""
    path = tmp_path_factory.mktemp("whole") / "run"
    done = command_line(*words(path))
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.slow
def test_run_killed_five_times_equals_uninterrupted_run(uninterrupted, tmp_path):
    moments = random.Random(20)
    path, resumed, inside = tmp_path / "run", [], 0
    for kind in ("early", "later", "saving", "later", "later"):
        process = start(path)
        before = newest(path)
        if kind == "early":
            wait_until(process, lambda: (path / "rows.jsonl").exists())
            time.sleep(moments.uniform(0, 0.3))
        else:
            wait_until(process, lambda before=before: newest(path) > before)
            if kind == "saving":
                wait_until(process, lambda: any((path / "checkpoints").glob("*.saving")))
            else:
                time.sleep(moments.uniform(0, 0.25))
        assert process.poll() is None, "finished before it could be killed"
        process.kill()
        process.wait()
        resumed.append(newest(path))
        inside += any((path / "checkpoints").glob("*.saving"))
    assert sum(step > 0 for step in resumed) >= 3 and inside >= 1, (resumed, inside)
    done = command_line(*words(path))
    assert done.returncode == 0 and f"resuming at step {resumed[-1]:,}" in done.stderr, done.stderr
    assert run_state(path) == run_state(uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_saves_and_resumes(uninterrupted, tmp_path, number):
    path = tmp_path / "run"
    process = start(path)
    wait_until(process, lambda: newest(path) > 0)
    told = time.monotonic()
    process.send_signal(number)
    stderr = process.communicate()[1]
    assert time.monotonic() - told < 10
    status = RunDir(path).read_json("STATUS.json")
    assert (
        process.returncode == 128 + number
        and status["status"] == "preempted"
        and status["step"] == newest(path) > 0
    )
    assert f"preempted at step {status['step']}" in stderr and "Traceback" not in stderr
    done = command_line("train", f"--workdir={path}")  # the directory stores the config
    assert done.returncode == 0, done.stderr
    assert run_state(path) == run_state(uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flipped", "truncated", "empty"])
def test_damaged_newest_checkpoint_falls_back_to_the_previous(uninterrupted, tmp_path, kind):
    """A truncated file, a flipped bit, or an empty directory: the run reports the
    damage, resumes at the previous checkpoint and ends with the same results.
    """
    import shutil

    path = tmp_path / kind
    shutil.copytree(uninterrupted, path)
    last = path / "checkpoints" / "600"
    biggest = max(
        (p for p in (last / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    data = biggest.read_bytes()
    if kind == "truncated":
        biggest.write_bytes(data[: len(data) // 2])
    elif kind == "flipped":
        biggest.write_bytes(data[:-1000] + bytes([data[-1000] ^ 1]) + data[-999:])
    else:
        shutil.rmtree(last)
        last.mkdir()
    done = command_line(*words(path))
    assert (
        done.returncode == 0
        and "checkpoints/600 is damaged" in done.stderr
        and "resuming at step 560" in done.stderr
    ), done.stderr
    assert "Traceback" not in done.stderr
    assert run_state(path) == run_state(uninterrupted)


@pytest.mark.slow
def test_second_process_in_one_directory_is_refused(tmp_path):
    path = tmp_path / "run"
    process = start(path, steps="1e6")
    wait_until(process, lambda: (path / "rows.jsonl").exists())
    second = command_line(*words(path, steps="1e6"))
    process.kill()
    process.wait()
    assert (
        second.returncode == 1
        and second.stderr == f"error: another process is training in {path}\n"
    )


FULL = """
set -e
mount -t tmpfs -o size=24m tmpfs "$1"
dir=$1; shift
set +e
"$@" 2> "$dir.err"
echo $? > "$dir.code"
cp "$dir/run/STATUS.json" "$dir.status"
ls "$dir/run/checkpoints" > "$dir.steps"
rm "$dir/filler"
"$@" 2> "$dir.err2"
echo $? > "$dir.code2"
cp -r "$dir/run" "$dir.run"
"""


@pytest.mark.slow
def test_full_disk_is_a_user_error_and_loses_no_checkpoint(uninterrupted, tmp_path):
    if (
        sys.platform != "linux"
        or subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("needs unshare -rm, to mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    fill = "import sys; open(sys.argv[1], 'wb').write(bytes(int(sys.argv[2])))"
    script = FULL.replace("set +e\n", f'set +e\n{sys.executable} -c "{fill}" $dir/filler 1\n', 1)
    # Space for one checkpoint and part of the next one.
    size = sum(
        p.stat().st_size for p in (uninterrupted / "checkpoints" / "600").rglob("*") if p.is_file()
    )
    script = script.replace("size=24m", f"size={5 * size + 2**20}").replace(
        "$dir/filler 1", f"$dir/filler {int(2.5 * size)}"
    )
    command = [
        "unshare",
        "-rm",
        "sh",
        "-c",
        script,
        "sh",
        str(disk),
        *start_words(*words(disk / "run")),
    ]
    done = subprocess.run(
        command, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False
    )
    if "mount" in done.stderr:
        pytest.skip(f"no small file system can be mounted: {done.stderr.strip()}")
    read = lambda end: (tmp_path / f"disk{end}").read_text()
    error = read(".err").splitlines()[-1]
    assert (
        read(".code") == "1\n" and error.startswith("error: the disk of") and "is full" in error
    ), read(".err")
    assert "Traceback" not in read(".err")
    steps = [int(s) for s in read(".steps").split() if s.isdecimal()]
    assert steps, "the checkpoint saved before is lost"
    assert read(".code2") == "0\n" and f"resuming at step {max(steps)}" in read(".err2"), read(
        ".err2"
    )
    assert run_state(tmp_path / "disk.run") == run_state(uninterrupted)


def test_unwritable_work_directory_is_a_one_line_error(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    paths = [(tmp_path / "file" / "run", ""), (tmp_path / "file", ""), ("/proc/run", "")]
    if os.geteuid():  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        paths.append((tmp_path / "locked" / "run", "Permission denied"))
    for path, reason in paths:
        assert cli.main(words(path)) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ") and len(error.splitlines()) == 1, error
        assert str(path) in error and reason in error
