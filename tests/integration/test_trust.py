"""Files of a run directory are verified before use: rows, configs, tokenizers,
checkpoints, statuses.
"""

import json
import shutil

import pytest
from runs import run_state, shared_programs, train
from texts import ALL
from tiny_configs import resolved, tiny

import aigc_jax
from aigc_jax.data.tokenizers import huggingface
from aigc_jax.inference.run import Run
from aigc_jax.sweeps.launch import delete_unfinished_outputs
from aigc_jax.sweeps.status import read_group_status
from aigc_jax.sweeps.sweep import Group
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils import documents
from aigc_jax.utils.errors import UserError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of 24 steps, with checkpoints of steps 16 and 24."""
    path = tmp_path_factory.mktemp("trust") / "run"
    assert train(tiny(steps=24), path)[0]["status"] == "done"
    return path


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def change_digit(path, key: bytes):
    """Replace the first digit of the first value of a key."""
    raw = path.read_bytes()
    at = raw.index(b'"' + key + b'": ') + len(key) + 4
    path.write_bytes(raw[:at] + (b"1" if raw[at : at + 1] != b"1" else b"2") + raw[at + 1 :])


def test_checkpoint_metadata_stores_length_and_sha256_of_rows(finished):
    import hashlib

    raw = (finished / "rows.jsonl").read_bytes()
    for step in (16, 24):
        saved = documents.read(finished / "checkpoints" / str(step) / "meta.json")["rows"]
        until = b"".join(line for line in raw.splitlines(True) if json.loads(line)["step"] <= step)
        assert saved == [dict(bytes=len(until), sha256=hashlib.sha256(until).hexdigest())]


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda path: change_digit(path, b"d_loss"), "rows were changed since the last checkpoint"),
        (
            lambda path: path.write_bytes(b"".join(path.read_bytes().splitlines(True)[1:])),
            "the file has .* of the .* bytes of rows",
        ),
        (lambda path: path.write_bytes(b""), "the file has 0 of the"),
    ],
)
def test_changed_or_missing_rows_are_refused_as_damage(run, damage, words):
    damage(run / "rows.jsonl")
    for use in (lambda: train(tiny(steps=24), run), lambda: RunDir(run).read_rows()):
        with pytest.raises(
            UserError,
            match=f"rows.jsonl is damaged: {words}.*; restore it from a copy, or restart",
        ):
            use()


def test_missing_rows_are_said_to_be_missing(run):
    (run / "rows.jsonl").unlink()
    with pytest.raises(UserError, match=r"rows.jsonl is missing.*; restore it.* train --config"):
        RunDir(run).read_rows()


def test_changed_config_json_is_refused_as_damage(run):
    change_digit(run / "config.json", b"batch_size")
    for use in (lambda: train(tiny(steps=24), run), lambda: aigc_jax.load(run)):
        with pytest.raises(UserError, match="config.json is damaged: it does not match its sha256"):
            use()


def test_replaced_tokenizer_is_refused(tmp_path):
    run = object.__new__(Run)
    run.dir, run.stored = RunDir(tmp_path), dict(tokenizer=ALL["bpe"].sha256)
    huggingface.write(tmp_path / huggingface.ASSETS, ALL["bpe"])
    assert run.tokenizer.sha256 == ALL["bpe"].sha256
    del run.tokenizer
    huggingface.write(tmp_path / huggingface.ASSETS, ALL["characters"])
    with pytest.raises(
        UserError, match="is not the tokenizer that the run was trained with; restore it"
    ):
        run.tokenizer  # noqa: B018


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"7",
        b"",
        b"null",
        b'{"a": ' + b"[" * 10**5,
        b'{"step": 24, "hash": ["a"]}',
        b'{"step": NaN}',
    ],
)
def test_malformed_checkpoint_metadata_falls_back_to_the_previous(run, text):
    """Training from the previous checkpoint ends with the same files."""
    expected = run_state(run)
    (run / "checkpoints" / "24" / "meta.json").write_bytes(text)
    reports = []
    with Checkpoints(run / "checkpoints") as checkpoints:
        assert checkpoints.read_newest_valid(reports.append)[2]["step"] == 16
    assert (
        len(reports) == 1
        and "meta.json" in reports[0]
        and "using the previous checkpoint" in reports[0]
    )
    if text == b"[]":
        assert train(tiny(steps=24), run)[0]["status"] == "done" and run_state(run) == expected


def test_lost_checkpoints_are_refused_and_restart_trains_anew(run):
    expected = run_state(run)
    for step in (16, 24):
        (run / "checkpoints" / str(step) / "meta.json").write_bytes(b"[]")
    rows = (run / "rows.jsonl").read_bytes()
    with pytest.raises(
        UserError,
        match="no checkpoint of .* can be read, although one was saved .*checkpoints holds 16, "
        r"24\): .*--restart",
    ):
        train(tiny(steps=24), run)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError, match=r"STATUS.json records done at step 24\): .*--restart"):
        train(tiny(steps=24), run)
    (run / "STATUS.json").unlink()
    with pytest.raises(UserError, match=r"rows.jsonl reaches step 24\): .*--restart"):
        train(tiny(steps=24), run)
    assert (run / "rows.jsonl").read_bytes() == rows
    (run / "mine.txt").write_text("not the run's")
    assert train(tiny(steps=24), run, restart=True)[0]["status"] == "done"
    assert run_state(run) == expected and (run / "mine.txt").exists()


def test_run_killed_before_its_first_checkpoint_starts_over(run):
    """Rows reach step 16 at most during the first save, of step 8, since the save of
    step 16 waits for the first one.
    """
    expected = run_state(run)
    shutil.rmtree(run / "checkpoints")
    RunDir(run).write_status("running", 0)
    rows = [
        line
        for line in (run / "rows.jsonl").read_bytes().splitlines(True)
        if json.loads(line)["step"] <= 16
    ]
    (run / "rows.jsonl").write_bytes(b"".join(rows))
    assert train(tiny(steps=24), run)[0]["status"] == "done" and run_state(run) == expected


@pytest.mark.parametrize("text", [b"[]\n", b"\xff\n"])
def test_damaged_status_timings_and_environment_prevent_no_training(run, text):
    expected = run_state(run)
    for name in ("STATUS.json", "timings.jsonl", "environment.json"):
        (run / name).write_bytes(text)
    assert train(tiny(steps=24), run)[0]["status"] == "done" and run_state(run) == expected
    assert documents.read(run / "STATUS.json")["status"] == "done" and documents.read(
        run / "environment.json"
    )


def test_newest_retries_when_a_checkpoint_is_deleted_while_reading(run, monkeypatch):
    path = run / "checkpoints"
    read, calls = Checkpoints.read_verified, []

    def read_late(self, step, *more):
        calls.append(step)
        if len(calls) == 1:  # a concurrent run saves step 32 and deletes the others
            shutil.copytree(path / "24", path / "32")
            meta = documents.read(path / "32" / "meta.json")
            documents.write(path / "32" / "meta.json", meta | dict(step=32))
            shutil.rmtree(path / "16")
            shutil.rmtree(path / "24")
        return read(self, step, *more)

    monkeypatch.setattr(Checkpoints, "read_verified", read_late)
    with Checkpoints(path) as checkpoints:
        assert checkpoints.read_newest_valid(pytest.fail)[2]["step"] == 32
    assert calls == [24, 32]


def test_rows_of_a_diverged_run_are_verified(tmp_path):
    config = tiny(hp__lr_g=1e18, hp__lr_d=1e18, steps=24, run__save_every="never")
    # the programs do not depend on save_every
    programs_of = lambda config, *given: shared_programs(resolved(tiny(steps=24)), *given)
    assert train(config, tmp_path, make=programs_of)[0]["status"] == "failed: diverged"
    assert RunDir(tmp_path).read_rows()
    change_digit(tmp_path / "rows.jsonl", b"d_loss")
    with pytest.raises(UserError, match="rows were changed"):
        RunDir(tmp_path).read_rows()


def test_file_size_limit_is_a_user_error_and_run_resumes_exactly(run, monkeypatch):
    import resource

    expected = run_state(run)
    shutil.rmtree(run / "checkpoints" / "24")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    biggest = max(p.stat().st_size for p in (run / "checkpoints" / "16").rglob("*") if p.is_file())
    monkeypatch.setattr("jax._src.compilation_cache.put_executable_and_time", lambda *words: None)
    resource.setrlimit(resource.RLIMIT_FSIZE, (biggest - 1000, hard))
    try:
        with pytest.raises(
            UserError,
            match=f"a file of {run} exceeds the file-size limit; saved files are intact: raise "
            "the limit",
        ):
            train(tiny(steps=24), run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    status = RunDir(run).read_status()
    assert status["status"] == "failed: crashed" and status["reason"].startswith(
        "a file of run exceeds the file-size limit"
    )
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["16"]
    assert train(tiny(steps=24), run)[0]["status"] == "done" and run_state(run) == expected


def group_of(run, path):
    """A group of a sweep, whose only trial is a copy of `run`."""
    shutil.copytree(run, path / "trials" / "a-0123456789ab")
    (path / "groups" / "g").mkdir(parents=True)
    member = dict(
        id="a-0123456789ab", overrides={}, config=documents.read(run / "config.json")["config"]
    )
    documents.write(path / "groups" / "g" / "group.json", dict(members=[member]))
    return Group(path / "groups" / "g")


def test_sweep_restart_clears_only_damaged_trials(finished, tmp_path):
    class OneGroup:
        def groups_by_name(self):
            return [group]

    group = group_of(finished, tmp_path)
    delete_unfinished_outputs(OneGroup())
    assert group.is_finished() and (group.dirs[0] / "rows.jsonl").exists()
    change_digit(group.dirs[0] / "rows.jsonl", b"d_loss")
    delete_unfinished_outputs(OneGroup())
    assert (
        not list(group.dirs[0].path.glob("*.json*"))
        and not (group.dirs[0] / "checkpoints").exists()
    )


def test_progress_is_unknown_for_damaged_timings(finished, tmp_path):
    group = group_of(finished, tmp_path)
    group.dirs[0].write_status("running", 0)
    for text in (
        b'{"step": 4, "seconds": 1, "steps_per_s": 0}\n',
        b'{"step": 4}\n',
        b"[]\n",
        b"\xff\n",
    ):
        (group.dirs[0] / "timings.jsonl").write_bytes(text)
        assert read_group_status(group).seconds_left is None
    (group.dirs[0] / "timings.jsonl").write_bytes(b'{"step": 4, "seconds": 1, "steps_per_s": 4}\n')
    group.dirs[0].make_and_lock()
    status = read_group_status(group)
    group.dirs[0].close()
    assert (status.progress, status.seconds_left) == (4 / 24, 5)
