"""Windows of texts: splits, epochs, streams, inputs and targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from texts import CHINESE, PLAY, load, section, split_texts

from aigc_jax.core.rng import DATA, fold_in
from aigc_jax.data import order, windows
from aigc_jax.utils.errors import UserError

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("own_cache")]


@pytest.mark.parametrize("split", windows.SPLITS)
def test_splits_of_one_text_have_disjoint_windows(tmp_path, split):
    ds = load(tmp_path / "a.txt", PLAY, split=split, tokenizer="characters")
    shares = [10 * windows.SPLITS[split].count(name) for name in ("train", "valid", "test")]
    cuts = np.cumsum([0, *shares]) * len(PLAY) // 100
    tokens, T = ds.arrays["tokens"], 8
    assert (
        tokens.dtype == np.uint16
        and ds.spec.shape == (T,)
        and ds.spec.n_train == ds.splits["train"][1]
        and ds.spec.kind == "text"
    )
    assert (
        ds.spec.vocabulary == ds.tokenizer.size == len(set(PLAY)) + 2
        and ds.tokenizer.pieces[ds.spec.start] == b"\n"
    )
    if shares[2] == 0:
        assert ds.splits["test"] == ds.splits["valid"]
    held = 0
    for i, (name, got) in enumerate(split_texts(ds).items()):
        if name != "test" or shares[2]:
            whole = PLAY[cuts[i] : cuts[i + 1]]
            assert whole.startswith(got) and len(whole) - len(got) < (
                2 * T if name == "train" else T
            )
            assert ds.splits[name][1] == (
                (len(whole) - T) // T if name == "train" else (len(whole) - 1) // T
            )
            assert ds.splits[name][0] * T >= held  # splits do not overlap
            held = ds.splits[name][0] * T + len(whole)
    assert len(tokens) % T == 0 and (tokens[held:] == ds.tokenizer.end).all()


def test_batches_hold_inputs_targets_and_their_sizes(tmp_path):
    ds = load(tmp_path / "a.txt", PLAY + CHINESE * 9, length=16)
    rows = np.arange(*np.cumsum(ds.splits["train"]))
    batch = ds.take(ds.arrays, rows)
    tokens = batch["tokens"]
    assert (
        tokens.shape == (len(rows), 17)
        and tokens.dtype == np.int32
        and batch["characters"].dtype == batch["bytes"].dtype == np.float32
    )
    # The last target of a window is the first input of the next window.
    np.testing.assert_array_equal(tokens[:-1, -1], tokens[1:, 0])
    np.testing.assert_array_equal(batch["bytes"], 1)
    targets = tokens[:, 1:].astype(np.uint8).tobytes()
    assert batch["characters"].sum() == sum(b & 0xC0 != 0x80 for b in targets)
    for take in (ds.take, jax.jit(ds.take)):
        arrays = jax.tree.map(jnp.asarray, ds.arrays)
        jax.tree.map(np.testing.assert_array_equal, take(arrays, jnp.asarray(rows)), batch)


def test_each_epoch_shifts_its_windows_by_one_random_word(tmp_path):
    ds = load(tmp_path / "a.txt", PLAY)
    T, (_, n) = 8, ds.splits["train"]
    rows = np.arange(n)
    stop = ds.splits["valid"][0] * T
    jax.tree.map(
        np.testing.assert_array_equal,
        ds.vary(ds.arrays, rows, np.full(n, 5 * T, np.uint32)),
        ds.take(ds.arrays, rows),
    )
    for word in (1, 7, 2**32 - 1):
        moved = ds.vary(ds.arrays, rows, np.full(n, word, np.uint32))["tokens"]
        first = word % T
        # Each position is a target once.
        np.testing.assert_array_equal(
            moved[:, 1:].ravel(), ds.arrays["tokens"][first + 1 : first + 1 + n * T]
        )
        assert first + n * T < stop
    source = jax.jit(order.make_train_batch_reader(ds, section(order="trial"), n))
    # A step is an epoch: all windows share one shift, and each occurs once.
    for step in range(3):
        batch = source(ds.arrays, jax.random.key(0), jnp.int32(step))
        word = jax.random.bits(fold_in(jax.random.key(0), DATA, step, 1), (), jnp.uint32)
        all_ = ds.vary(ds.arrays, rows, np.full(n, word))["tokens"]
        np.testing.assert_array_equal(
            np.unique(np.asarray(batch["tokens"]), axis=0), np.unique(all_, axis=0)
        )
        np.testing.assert_array_equal(batch["index"], rows)


def test_batch_across_epochs_uses_the_random_word_of_each():
    n, size, key = 10, 4, jax.random.key(3)
    words = np.concatenate([order.make_epoch_words(n, size)(key, jnp.int32(s)) for s in range(15)])
    assert words.dtype == np.uint32
    for epoch in range(6):
        expected = jax.random.bits(fold_in(key, DATA, epoch, 1), (), jnp.uint32)
        assert (words[epoch * n : (epoch + 1) * n] == expected).all()


def test_stream_batches_continue_the_previous_windows(tmp_path):
    ds = load(tmp_path / "a.txt", PLAY)
    n, size = ds.splits["train"][1], 7
    per = n // size
    source = jax.jit(order.make_train_batch_reader(ds, section(order="stream"), size))
    batches = [source(ds.arrays, jax.random.key(0), jnp.int32(s)) for s in range(2 * per + 1)]
    for s, (a, b) in enumerate(zip(batches, batches[1:], strict=False), 1):
        fresh = s % per == 0
        assert b["fresh"].shape == (size,) and (np.asarray(b["fresh"]) == fresh).all()
        assert bool((a["tokens"][:, -1] == b["tokens"][:, 0]).all()) or fresh
    assert np.asarray(batches[0]["fresh"]).all()
    np.testing.assert_array_equal(batches[0]["tokens"], batches[per]["tokens"])
    np.testing.assert_array_equal(
        batches[0]["tokens"], ds.take(ds.arrays, np.arange(size) * per)["tokens"]
    )
    with pytest.raises(
        UserError,
        match=f"config.batch_size = {n + 1} streams .* must not outnumber the {n} training "
        "examples",
    ):
        order.make_train_batch_reader(ds, section(order="stream"), n + 1)


def test_documents_are_undivided_and_duplicates_share_a_split(tmp_path):
    corpus = [f"<poem {i % 150} of the moon over the river>" for i in range(300)]
    ds = load(tmp_path / "a", corpus)
    parts = windows.split_by_content_hash(corpus, windows.SPLITS["80/10/10"])
    assert sorted(sum(parts.values(), [])) == sorted(corpus)
    for a, b in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert not set(parts[a]) & set(parts[b])
    assert windows.split_by_content_hash(corpus[:200], windows.SPLITS["80/10/10"])["valid"] == [
        t for t in corpus[:200] if t in parts["valid"]
    ]
    ends = sum(ds.arrays["tokens"] == ds.tokenizer.end) - sum(
        -(len(t.encode()) + len(p)) % 8 for p in parts.values() for t in ["".join(p)]
    )
    assert ends == 300 and ds.spec.start == ds.tokenizer.end
    letters = sum(map(len, corpus))
    assert ds.about["text"] == dict(
        documents=300,
        characters=letters,
        tokens=letters + 300,
        characters_per_token=letters / (letters + 300),
        tokenizer="bytes",
        loses="nothing",
    )
    got = split_texts(ds)
    assert all("".join(parts[name]).startswith(got[name]) for name in parts)


def test_few_documents_are_split_by_position():
    parts = windows.split_by_position(["abcdef", "ghij", "klmnopqrst"], windows.SPLITS["80/10/10"])
    assert parts == dict(train=["abcdef", "ghij", "klmnop"], valid=["qr"], test=["st"])


def test_only_character_vocabularies_include_held_out_text(tmp_path):
    ds = load(tmp_path / "a.txt", PLAY + CHINESE, tokenizer="characters", split="90/10")
    assert ds.tokenizer.decode(ds.tokenizer.encode(CHINESE)) == CHINESE
    words = load(tmp_path / "a.txt", tokenizer="words", split="90/10").tokenizer
    assert "秦川雄帝宅".encode() not in words.pieces
