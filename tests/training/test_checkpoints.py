"""Checkpoints: what is written comes back; what is damaged is reported, and skipped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aigc_jax.core import distributed
from aigc_jax.core.distributed import Pieces
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.serialization import digest, digests, fill, flatten
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


def test_what_is_written_plainly_comes_back(tmp_path):
    """bfloat16 too, for which NumPy's files have no type."""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, flatten(TREE), {}, META, plain=True)
    state, best, _ = checkpoints.read(1)
    assert (
        digest(state) == digest(flatten(TREE)) and best == {} and state["b/d"].dtype == jnp.bfloat16
    )


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
    changed = [
        flat | {"a": flat["a"].reshape(3, 2)},
        flat | {"a": flat["a"].view(np.int32)},
        flat | {"a": -flat["a"]},
        {("z" if k == "a" else k): v for k, v in flat.items()},
    ]
    assert len({digest(flat), *map(digest, changed)}) == 5


def shares(monkeypatch, trees, count):
    """As if this were each of so many processes in turn, with the pieces that
    `of(process, leaf's name, leaf)` says.
    """

    def write(path, step=1):
        for i in reversed(range(count)):  # the first waits for the others
            monkeypatch.setattr(jax, "process_count", lambda: count)
            monkeypatch.setattr(jax, "process_index", lambda i=i: i)
            with Checkpoints(path) as checkpoints:
                checkpoints.save(
                    step,
                    {
                        k: Pieces(x.shape, x.dtype, pieces.get(i, {}))
                        for k, (x, pieces) in trees.items()
                    },
                    {},
                    META,
                )
        monkeypatch.undo()

    return write


def test_shares_of_several_processes_are_one_checkpoint_for_any_number(tmp_path, monkeypatch):
    """Written in two columns by two, with a leaf that only the first has; read whole,
    in three rows by one of three, and damaged.
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
    shares(monkeypatch, parts, 2)(tmp_path)
    checkpoints = Checkpoints(tmp_path)
    state, best, meta = checkpoints.newest(pytest.fail)
    assert (
        digest(state) == digest(whole)
        and best == {}
        and set(meta["files"]) == {"state.0.npz", "state.1.npz"}
    )
    asked = lambda name, shape: (
        [((0, 1), (2, 4), (0, 4)), ((0, 1), (4, 6), (1, 3))]
        if name == "w"
        else [tuple((0, n) for n in shape)]
    )
    state, _, _ = checkpoints.read(1, asked)
    assert [p.tolist() for p in state["w"].parts.values()] == [
        whole["w"][:, 2:4].tolist(),
        whole["w"][:, 4:, 1:3].tolist(),
    ]
    assert state["w"].shape == (1, 6, 4) and state["narrow"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(state["narrow"]), whole["narrow"])
    file = tmp_path / "1" / "state.1.npz"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match="state.1.npz does not match its hash"):
        checkpoints.read(1)


def test_trials_that_are_not_finite_are_known_from_the_pieces_of_them():
    x = np.zeros((4, 3), np.float32)
    x[1, 2] = np.nan
    assert distributed.finite(x).tolist() == [True, False, True, True]
    half = Pieces((4, 3), np.float32, {((0, 2), (2, 3)): x[:2, 2:], ((2, 4), (0, 3)): x[2:]})
    assert distributed.finite(half).tolist() == [True, False, True, True]


def test_digests_of_stacked_trials_are_those_of_each():
    flat = flatten(TREE)
    assert digests(TREE, 2) == [digest({k: v[i : i + 1] for k, v in flat.items()}) for i in (0, 1)]


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
    assert (
        len(reports) == 1
        and "\n" not in reports[0]
        and str(path / "3") in reports[0]
        and "is damaged" in reports[0]
    )


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


# Of each file the ends and some places within.
@pytest.mark.parametrize("places", [4, pytest.param(12, marks=pytest.mark.slow)])
def test_one_flipped_bit_anywhere_is_noticed(tmp_path, places):
    saved(tmp_path)
    for file in files_of(tmp_path / "3"):
        whole = file.read_bytes()
        for at in np.linspace(0, len(whole) - 1, places, dtype=int).tolist() if whole else []:
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
    assert damaged(tmp_path, reports) is None and "its meta.json is of step 1" in reports[0]


def test_an_error_of_a_save_in_the_background_is_raised(tmp_path):
    (tmp_path / "c").write_text("a file where the directory should be")
    with pytest.raises(Exception, match="c"), Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(1, flatten(TREE), {}, META)
        checkpoints.wait()
