"""One group of a sweep as one program."""

import pytest
from tiny_configs import tiny

from aigc_jax.sweeps import grid
from aigc_jax.sweeps.group import GroupTraining
from aigc_jax.sweeps.sweep import Group, Sweep
from aigc_jax.sweeps.trials import make_trials
from aigc_jax.training import config as configs
from aigc_jax.utils import documents
from aigc_jax.utils.errors import UserError


def test_rung_without_readable_checkpoint_is_a_user_error(tmp_path):
    halving = dict(metric="valid/loss", rungs=["2 steps"], mode="min", factor=2)
    documents.write(tmp_path / "group.json", dict(members=[], halving=halving))
    training = GroupTraining(Group(tmp_path), [], None, "vmap", False, print)
    with pytest.raises(UserError, match="no good checkpoint"):
        training.rank_and_stop_trials(tmp_path, [])


def unfinished(path, halving=None):
    """A sweep of three trials with two rows each, of a group that is being trained."""
    sweep = Sweep(path)
    base = configs.override(tiny("vae"), {"steps": 16, "metrics": ()})
    sweep.add_trials(
        make_trials(base, grid.seeds(3)), "test", dict(halving=halving) if halving else None
    )
    (members,) = sweep.groups()
    for run in members.dirs:
        run.path.mkdir(parents=True)
        for step in (4, 8):
            run.append_row(dict(step=step, split="train", loss=step + 0.5))
        run.write_status("training", 8)
    return sweep, members


def save_meta(folder, runs):
    meta = dict(step=8, failed=[None] * len(runs), best=[None] * len(runs), files={})
    (folder / "checkpoints" / "8").mkdir(parents=True)
    documents.write(
        folder / "checkpoints" / "8" / "meta.json",
        meta | dict(rows=[run.digest_rows() for run in runs]),
    )


def change_row(run):
    raw = (run / "rows.jsonl").read_bytes()
    (run / "rows.jsonl").write_bytes(raw.replace(b"4.5", b"4.6"))


def test_changed_rows_of_an_unfinished_trial_are_reported(tmp_path):
    sweep, members = unfinished(tmp_path)
    save_meta(members.path, members.dirs)
    for run in members.dirs:
        run.append_row(dict(step=12, split="train", loss=12.5))  # after the checkpoint
        run.close()
    assert len(sweep.rows()) == 9 and not members.is_damaged()
    change_row(members.dirs[1])
    with pytest.raises(UserError, match="rows were changed since the last checkpoint"):
        members.check_unfinished_rows()
    assert members.is_damaged() and len(sweep.rows()) == 6, "the others remain"
    members.dirs[1].write_status("done", 16)  # verified against the trial's own checkpoint
    assert len(sweep.rows()) == 9


@pytest.mark.parametrize("number", range(3))
def test_changed_rows_of_a_trial_in_a_rung_are_reported(tmp_path, number):
    """Trial 2 ends in rung 0, and trial 0 in rung 1, where only 1 and 0 have rows."""
    halving = dict(rungs=["4 steps", "8 steps"], factor=2, metric="valid/neg_elbo", mode="min")
    sweep, members = unfinished(tmp_path, halving)
    names, runs = members.members, members.dirs
    for rung, trained, ended in ((0, [0, 1, 2], [0, 1]), (1, [0, 1], [1])):
        folder = members.path / f"rung_{rung}"
        save_meta(folder, [runs[i] for i in trained])
        documents.write(
            folder / "rung.json", dict(step=4, kept=[names[i] for i in ended], stopped={})
        )
    save_meta(members.path, [runs[1]])
    for run in runs:
        run.close()
    assert len(sweep.rows()) == 6
    change_row(runs[number])
    results = sweep.read_results()
    assert {row["trial"] for row in results.rows} == set(names) - {names[number]}
    (damaged,) = (trial for trial in results.trials if trial["trial"] == names[number])
    assert damaged["status"] == "failed: damaged" and "rows were changed" in damaged["failure"]
