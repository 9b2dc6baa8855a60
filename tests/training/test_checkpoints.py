"""Checkpoints: round trips, sharded files, and detection of damage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aigc_jax.core import distributed
from aigc_jax.core.distributed import LocalShards
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.serialization import (
    digest_leaves,
    digest_trials,
    flatten_state,
    restore_like,
)
from aigc_jax.utils.errors import UserError

TREE = dict(
    a=np.arange(6, dtype=np.float32).reshape(2, 3),
    b=dict(c=np.array([1, 2], np.int32), d=jnp.ones((2, 1), jnp.bfloat16)),
    key=jax.random.split(jax.random.key(7), 2),
)
META = dict(
    failed=[None, dict(step=3, metric="loss")],
    best=[dict(step=1, value=0.5), None],
    rows=[dict(bytes=0, sha256="")] * 2,
)


def saved(path, steps=(1, 2, 3)):
    with Checkpoints(path) as checkpoints:
        for step in steps:
            checkpoints.save(
                step, flatten_state(TREE) | dict(step=np.array([step])), flatten_state(TREE), META
            )
    return checkpoints


def test_checkpoint_round_trip_preserves_state_and_meta(tmp_path):
    checkpoints = saved(tmp_path)
    assert checkpoints.list_steps() == [3, 2]  # the newest two
    state, best, meta = checkpoints.read_newest_valid(pytest.fail)
    assert int(state.pop("step")[0]) == 3 and digest_leaves(state) == digest_leaves(
        best
    ) == digest_leaves(flatten_state(TREE))
    assert meta["step"] == 3 and meta["failed"] == META["failed"] and meta["best"] == META["best"]
    again = restore_like(jax.eval_shape(lambda: TREE), state, "here")
    assert jax.tree.structure(again) == jax.tree.structure(TREE)
    assert (jax.random.normal(again["key"][1]) == jax.random.normal(TREE["key"][1])).all()


def test_plain_checkpoint_round_trip_preserves_bfloat16(tmp_path):
    """NumPy's file format has no bfloat16, so plain checkpoints encode it."""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, flatten_state(TREE), {}, META, as_npz=True)
    state, best, _ = checkpoints.read_verified(1)
    assert (
        digest_leaves(state) == digest_leaves(flatten_state(TREE))
        and best == {}
        and state["b/d"].dtype == jnp.bfloat16
    )


def test_restore_like_names_mismatched_leaves():
    flat = flatten_state(TREE)
    for change, word in (
        ({"a": flat["a"][:1]}, r"here: a is float32 \(1, 3\), expected float32 \(2, 3\)"),
        ({"b/c": flat["b/c"].astype(np.int64)}, "b/c is int64"),
    ):
        with pytest.raises(UserError, match=word):
            restore_like(TREE, flat | change, "here")
    del flat["b/d"]
    with pytest.raises(UserError, match="here has no b/d"):
        restore_like(TREE, flat, "here")


def test_digest_depends_on_names_dtypes_shapes_and_bytes():
    flat = flatten_state(TREE)
    changed = [
        flat | {"a": flat["a"].reshape(3, 2)},
        flat | {"a": flat["a"].view(np.int32)},
        flat | {"a": -flat["a"]},
        {("z" if k == "a" else k): v for k, v in flat.items()},
    ]
    assert len({digest_leaves(flat), *map(digest_leaves, changed)}) == 5


def make_sharded_writer(monkeypatch, trees, count):
    """Returns a function that writes one checkpoint as `count` simulated processes.

    Args:
      trees: {name: (global array, {process: {slices: shard}})}.
    """

    def write(path, step=1):
        for i in reversed(range(count)):  # process 0 waits for the other processes
            monkeypatch.setattr(jax, "process_count", lambda: count)
            monkeypatch.setattr(jax, "process_index", lambda i=i: i)
            with Checkpoints(path) as checkpoints:
                checkpoints.save(
                    step,
                    {
                        k: LocalShards(x.shape, x.dtype, pieces.get(i, {}))
                        for k, (x, pieces) in trees.items()
                    },
                    {},
                    META,
                )
        monkeypatch.undo()

    return write


def test_sharded_checkpoint_is_readable_by_any_process_count(tmp_path, monkeypatch):
    """Two processes write column shards; one leaf exists on process 0 only. The
    checkpoint is read in full, then in row slices as by one of three processes; a
    truncated shard file is detected.
    """
    whole = dict(
        w=np.arange(24, dtype=np.float32).reshape(1, 6, 4),
        narrow=jnp.arange(6).astype(jnp.bfloat16).reshape(1, 6),
        one=np.array([7]),
    )
    whole = {k: np.asarray(v) for k, v in whole.items()}
    parts = {
        "w": (
            whole["w"],
            {
                i: {((0, 1), (0, 6), (2 * i, 2 * i + 2)): whole["w"][:, :, 2 * i : 2 * i + 2]}
                for i in (0, 1)
            },
        ),
        "narrow": (
            whole["narrow"],
            {
                i: {((0, 1), (3 * i, 3 * i + 3)): whole["narrow"][:, 3 * i : 3 * i + 3]}
                for i in (0, 1)
            },
        ),
        "one": (whole["one"], {0: {((0, 1),): whole["one"]}}),
    }
    make_sharded_writer(monkeypatch, parts, 2)(tmp_path)
    checkpoints = Checkpoints(tmp_path)
    state, best, meta = checkpoints.read_newest_valid(pytest.fail)
    assert (
        digest_leaves(state) == digest_leaves(whole)
        and best == {}
        and set(meta["files"]) == {"state.0.npz", "state.1.npz"}
    )
    asked = lambda name, shape: (
        [((0, 1), (2, 4), (0, 4)), ((0, 1), (4, 6), (1, 3))]
        if name == "w"
        else [tuple((0, n) for n in shape)]
    )
    state, _, _ = checkpoints.read_verified(1, asked)
    assert [p.tolist() for p in state["w"].parts.values()] == [
        whole["w"][:, 2:4].tolist(),
        whole["w"][:, 4:, 1:3].tolist(),
    ]
    assert state["w"].shape == (1, 6, 4) and state["narrow"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(state["narrow"]), whole["narrow"])
    file = tmp_path / "1" / "state.1.npz"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match="state.1.npz does not match its hash"):
        checkpoints.read_verified(1)


def test_is_finite_per_trial_from_local_shards():
    x = np.zeros((4, 3), np.float32)
    x[1, 2] = np.nan
    assert distributed.is_trial_finite(x).tolist() == [True, False, True, True]
    half = LocalShards((4, 3), np.float32, {((0, 2), (2, 3)): x[:2, 2:], ((2, 4), (0, 3)): x[2:]})
    assert distributed.is_trial_finite(half).tolist() == [True, False, True, True]


def test_digest_trials_equals_digest_of_each_trial():
    flat = flatten_state(TREE)
    assert digest_trials(TREE, 2) == [
        digest_leaves({k: v[i : i + 1] for k, v in flat.items()}) for i in (0, 1)
    ]


def files_of(path):
    return [p for p in sorted(path.rglob("*")) if p.is_file()]


def damaged(path, reports):
    """Returns the step that is restored from `path`; appends reports of damage."""
    with Checkpoints(path) as checkpoints:
        found = checkpoints.read_newest_valid(reports.append)
    return found and found[2]["step"]


def assert_detected(path, file):
    reports = []
    assert damaged(path, reports) == 2, file
    assert (
        len(reports) == 1
        and "\n" not in reports[0]
        and str(path / "3") in reports[0]
        and "is damaged" in reports[0]
    )


def test_truncated_or_missing_files_are_detected(tmp_path):
    saved(tmp_path)
    files = files_of(tmp_path / "3")
    assert len(files) > 10
    for file in files:
        whole = file.read_bytes()
        for size in {0, len(whole) // 2, max(len(whole) - 1, 0)} - {len(whole)}:
            file.write_bytes(whole[:size])
            assert_detected(tmp_path, file)
        file.unlink()
        assert_detected(tmp_path, file)
        file.write_bytes(whole)
    assert damaged(tmp_path, []) == 3


# Number of byte positions per file: both ends and evenly spaced ones between them.
@pytest.mark.parametrize("places", [4, pytest.param(12, marks=pytest.mark.slow)])
def test_bit_flip_in_any_file_is_detected(tmp_path, places):
    saved(tmp_path)
    for file in files_of(tmp_path / "3"):
        whole = file.read_bytes()
        for at in np.linspace(0, len(whole) - 1, places, dtype=int).tolist() if whole else []:
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
            assert_detected(tmp_path, file)
        file.write_bytes(whole)
    assert damaged(tmp_path, []) == 3


def test_empty_steps_are_quarantined_and_foreign_entries_ignored(tmp_path):
    saved(tmp_path)
    (tmp_path / "999").mkdir()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "7").write_text("a file")
    reports = []
    assert damaged(tmp_path, reports) == 3 and len(reports) == 1 and "999" in reports[0]
    checkpoints = Checkpoints(tmp_path)
    checkpoints.quarantine(newer_than=3)
    assert checkpoints.list_steps() == [3, 2] and (tmp_path / "999.damaged").is_dir()
    assert damaged(tmp_path / "none", []) is None


def test_renamed_checkpoint_is_rejected(tmp_path):
    saved(tmp_path, (1,))
    (tmp_path / "1").rename(tmp_path / "5")
    reports = []
    assert damaged(tmp_path, reports) is None and "its meta.json is of step 1" in reports[0]


def test_background_save_error_is_raised(tmp_path):
    (tmp_path / "c").write_text("a file where the directory should be")
    with pytest.raises(Exception, match="c"), Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(1, flatten_state(TREE), {}, META)
        checkpoints.wait_until_finished()
