"""Checkpoints: what is written comes back; what is damaged is noticed, reported, and passed over."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aigc_jax.checkpoint import Checkpoints, digest, fill, flatten
from aigc_jax.errors import UserError

TREE = dict(a=np.arange(6, dtype=np.float32).reshape(2, 3), b=dict(c=np.array([1, 2], np.int32), d=jnp.ones((2, 1), jnp.bfloat16)),
            key=jax.random.split(jax.random.key(7), 2))  # fmt: skip
META = dict(failed=[None, dict(step=3, metric="loss")], best=[dict(step=1, value=0.5), None])


def saved(path, steps=(1, 2, 3)):
    with Checkpoints(path) as checkpoints:
        for step in steps:
            checkpoints.save(step, flatten(TREE) | dict(step=np.array([step])), flatten(TREE), META)
    return checkpoints


def test_what_is_written_comes_back(tmp_path):
    checkpoints = saved(tmp_path)
    assert checkpoints.steps() == [3, 2]  # the newest two
    state, best, meta = checkpoints.newest(pytest.fail)
    assert int(state.pop("step")[0]) == 3 and digest(state) == digest(best) == digest(flatten(TREE))
    assert meta["step"] == 3 and meta["failed"] == META["failed"] and meta["best"] == META["best"]
    again = fill(jax.eval_shape(lambda: TREE), state, "here")
    assert jax.tree.structure(again) == jax.tree.structure(TREE)
    assert (jax.random.normal(again["key"][1]) == jax.random.normal(TREE["key"][1])).all()


def test_fill_names_what_does_not_fit():
    flat = flatten(TREE)
    for change, word in (
        ({"a": flat["a"][:1]}, r"here: a is float32 \(1, 3\), expected float32 \(2, 3\)"),
        ({"b/c": flat["b/c"].astype(np.int64)}, "b/c is int64"),
    ):
        with pytest.raises(UserError, match=word):
            fill(TREE, flat | change, "here")
    del flat["b/d"]
    with pytest.raises(UserError, match="here has no b/d"):
        fill(TREE, flat, "here")


def test_the_digest_sees_names_types_shapes_and_bytes():
    flat = flatten(TREE)
    changed = [flat | {"a": flat["a"].reshape(3, 2)}, flat | {"a": flat["a"].view(np.int32)}, flat | {"a": -flat["a"]},
               {("z" if k == "a" else k): v for k, v in flat.items()}]  # fmt: skip
    assert len({digest(flat), *map(digest, changed)}) == 5


def files_of(path):
    return [p for p in sorted(path.rglob("*")) if p.is_file()]


def damaged(path, reports):
    """The step that is restored after the damage, and what was said."""
    with Checkpoints(path) as checkpoints:
        found = checkpoints.newest(reports.append)
    return found and found[2]["step"]


def assert_noticed(path, file):
    reports = []
    assert damaged(path, reports) == 2, file
    assert len(reports) == 1 and "\n" not in reports[0] and f"{path / '3'} is damaged" in reports[0]


def test_truncation_of_any_file_is_noticed(tmp_path):
    saved(tmp_path)
    files = files_of(tmp_path / "3")
    assert len(files) > 10
    for file in files:
        whole = file.read_bytes()
        for size in {0, len(whole) // 2, max(len(whole) - 1, 0)} - {len(whole)}:
            file.write_bytes(whole[:size])
            assert_noticed(tmp_path, file)
        file.unlink()
        assert_noticed(tmp_path, file)
        file.write_bytes(whole)
    assert damaged(tmp_path, []) == 3


def test_one_flipped_bit_anywhere_is_noticed(tmp_path):
    saved(tmp_path)
    for file in files_of(tmp_path / "3"):
        whole = file.read_bytes()
        for at in np.linspace(0, len(whole) - 1, 12, dtype=int).tolist() if whole else []:
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
            assert_noticed(tmp_path, file)
        file.write_bytes(whole)
    assert damaged(tmp_path, []) == 3


def test_empty_and_foreign_directories(tmp_path):
    saved(tmp_path)
    (tmp_path / "999").mkdir()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "7").write_text("a file")
    reports = []
    assert damaged(tmp_path, reports) == 3 and len(reports) == 1 and "999" in reports[0]
    checkpoints = Checkpoints(tmp_path)
    checkpoints.set_aside(newer_than=3)
    assert checkpoints.steps() == [3, 2] and (tmp_path / "999.damaged").is_dir()
    assert damaged(tmp_path / "none", []) is None


def test_a_renamed_checkpoint_is_not_taken_for_another_step(tmp_path):
    saved(tmp_path, (1,))
    (tmp_path / "1").rename(tmp_path / "5")
    reports = []
    assert damaged(tmp_path, reports) is None and "hash" in reports[0]


def test_an_error_of_a_save_in_the_background_is_raised(tmp_path):
    (tmp_path / "c").write_text("a file where the directory should be")
    with pytest.raises(Exception, match="c"), Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(1, flatten(TREE), {}, META)
        checkpoints.wait()
