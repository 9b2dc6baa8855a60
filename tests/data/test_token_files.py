"""Token files: windows equal those of the same text, however it is divided into files;
no file is loaded into memory.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import train
from texts import section
from tiny_configs import tiny

from aigc_jax import data
from aigc_jax.cli import main as cli
from aigc_jax.data import dataset as datasets
from aigc_jax.data import order, pipelines, token_files
from aigc_jax.data.dataset import hash_arrays_and_splits
from aigc_jax.data.order import divmod_product
from aigc_jax.data.tokenizers import huggingface
from aigc_jax.training import config as configs
from aigc_jax.utils.errors import UserError

T = 8


@pytest.fixture
def token_corpus(tmp_path):
    """(data set of a text, tokens of each split, writer of token files, loader)."""
    text = "".join(f"line {i}: {i * i}\n" for i in range(300))
    (tmp_path / "text.txt").write_text(text)
    ds = data.load(
        section(
            name="text",
            path=str(tmp_path / "text.txt"),
            tokenizer="bpe",
            vocabulary=300,
            length=T,
            split="80/10/10",
        )
    )
    huggingface.write(tmp_path, ds.tokenizer)
    folder = tmp_path / "tokens"
    folder.mkdir()
    numbers = [
        np.asarray(ds.arrays["tokens"][start * T : (start + count + 1) * T])
        for start, count in ds.splits.values()
    ]

    def write(name, x, head=(), kind=np.uint16):
        path = folder / name
        if path.suffix == ".npy":
            np.save(path, x.astype(kind))
        else:
            path.write_bytes(
                (np.pad(np.array(head, np.int32), (0, 256 - len(head))).tobytes() if head else b"")
                + x.astype(kind).tobytes()
            )

    return (
        ds,
        numbers,
        write,
        lambda **more: data.load(
            section(
                **dict(
                    name="tokens",
                    path=str(folder),
                    tokenizer="file",
                    tokenizer_path=str(tmp_path / "tokenizer.json"),
                    length=T,
                )
                | more
            )
        ),
    )


def windows(ds, split):
    start, count = ds.splits[split]
    return ds.take(ds.arrays, np.arange(start, start + count))["tokens"]


def test_token_file_windows_equal_text_windows(token_corpus):
    ds, (train_, valid, test), write, load = token_corpus
    cuts = [0, 13, 200, 333, len(train_)]
    for i, (low, high) in enumerate(zip(cuts, cuts[1:], strict=False)):
        write(f"train_{i:06d}.bin", train_[low:high], (20240520, 1, high - low))
    write("val.bin", valid)
    both = load()
    assert both.splits["test"] == both.splits["valid"]
    write("test.npy", test)
    found = load()
    for split in ("train", "valid", "test"):
        np.testing.assert_array_equal(windows(found, split)[:5], windows(ds, split)[:5])
        # The files also contain the tokens after the last window of a split.
        assert len(windows(found, split)) >= len(windows(ds, split))
    tokens = found.arrays["tokens"]
    whole = np.asarray(tokens)
    assert (
        whole.dtype == np.uint16
        and len(whole) == len(tokens)
        and len(whole) % T == 0
        and all(isinstance(p, np.ndarray) for p in tokens.parts)
    )
    rows = np.random.RandomState(0).randint(0, len(whole), (7, 9))
    np.testing.assert_array_equal(tokens[rows], whole[rows])
    np.testing.assert_array_equal(tokens[5:700], whole[5:700])
    assert found.tokenizer.decode(windows(found, "train")[0]) == ds.tokenizer.decode(
        windows(ds, "train")[0]
    )
    assert hash_arrays_and_splits(found) == hash_arrays_and_splits(
        found._replace(arrays=found.arrays | dict(tokens=whole))
    )
    assert hash_arrays_and_splits(found) != hash_arrays_and_splits(both)


def test_fingerprint_is_independent_of_the_chunk_size(token_corpus, monkeypatch):
    ds = token_corpus[0]
    before = hash_arrays_and_splits(ds)
    monkeypatch.setattr(datasets, "PIECE_BYTES", 100)
    assert hash_arrays_and_splits(ds) == before


def test_host_training_does_not_load_token_files_into_memory(token_corpus, tmp_path, monkeypatch):
    """Only the memory-mapped pages in use are read."""
    _, (train_, valid, _), write, load = token_corpus
    write("train_1.npy", train_, kind=np.uint32)
    write("val_1.bin", valid, (20240801, 7, len(valid)), kind=np.uint32)
    given = load()
    assert given.spec.vocabulary == given.tokenizer.size
    config = tiny(
        "lm",
        run__data_placement="host",
        data__name="tokens",
        data__tokenizer="file",
        data__length=T,
        model__context=T,
        data__path=str(tmp_path / "tokens"),
        data__tokenizer_path=str(tmp_path / "tokenizer.json"),
    )
    monkeypatch.setattr(
        token_files.ConcatenatedArray, "__array__", lambda *_, **__: pytest.fail("read whole")
    )
    assert train([config], [tmp_path / "run"])[0]["status"] == "done"


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("train.bin", b"", "train.bin has 0 bytes: a token has two"),
        ("train.bin", b"abc", "train.bin has 3 bytes: a token has two"),
        (
            "train.bin",
            np.array([20240520, 1, 50], np.int32).tobytes() + bytes(1012 + 60),
            "its header declares 50 tokens of 2 bytes",
        ),
        (
            "train.bin",
            np.array([1, 2, 999], np.uint16).tobytes(),
            "train.bin: token 2 is 999, and config.data.tokenizer_path has",
        ),
        ("train.npy", b"\x93NUMPY", "train.npy cannot be read"),
        ("other.bin", b"ab", "has no file train*.bin or train*.npy"),
    ],
)
def test_invalid_token_files_raise_one_line_errors(token_corpus, tmp_path, name, content, message):
    _, (_, valid, _), write, load = token_corpus
    write("val.bin", valid)
    (tmp_path / "tokens" / name).write_bytes(content)
    with pytest.raises(UserError) as e:
        load()
    assert message in str(e.value) and "\n" not in str(e.value)


def test_inconsistent_token_files_and_keys_are_refused(token_corpus, tmp_path):
    _, (train_, valid, _), write, load = token_corpus
    write("train.bin", train_)
    with pytest.raises(UserError, match=r"has no file val\*.bin or val\*.npy"):
        load()
    write("val.npy", np.stack([valid, valid]))
    with pytest.raises(UserError, match="tokens are integers of at most 32 bits"):
        load()
    write("val.npy", valid.astype(np.int32), kind=np.int32)
    with pytest.raises(UserError, match="has tokens of int32, and other files have uint16"):
        load()
    write("val.npy", valid)
    for more, message in (
        (
            dict(tokenizer="bytes"),
            "config.data.tokenizer = 'bytes' must be 'file' for config.data.name = 'tokens'",
        ),
        (dict(path=""), "config.data.path = '' must name a directory of token files"),
        (dict(path=str(tmp_path / "tokenz")), "did you mean 'tokens'?"),
        (dict(length=10**6), "config.data.length = 1000000 is too long: the train split has"),
    ):
        with pytest.raises(UserError, match=message):
            load(**more)


def test_data_command_summarizes_token_files(token_corpus, tmp_path, capsys):
    _, (train_, valid, _), write, _ = token_corpus
    write("train.bin", train_)
    write("val.bin", valid)
    words = [
        "data",
        "--name=tokens",
        f"--path={tmp_path / 'tokens'}",
        "--tokenizer=file",
        f"--tokenizer_path={tmp_path / 'tokenizer.json'}",
    ]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert (
        f"{len(train_):,} tokens  train.bin" in out
        and f"{len(train_) + len(valid):,} tokens of" in out
        and "line 0" in out
    )


def test_too_many_tokens_for_device_data_are_refused(token_corpus, monkeypatch):
    ds = token_corpus[0]
    monkeypatch.setattr(token_files.ConcatenatedArray, "__len__", lambda self: 2**31)
    many = ds._replace(
        arrays=ds.arrays | dict(tokens=token_files.ConcatenatedArray([np.zeros(5, np.uint16)]))
    )
    with pytest.raises(
        UserError,
        match="config.run.data_placement = 'device' supports fewer than 2.31 tokens, and "
        "the data have 2,147,483,648; 'host' has no such limit",
    ):
        pipelines.FromDevice(
            many,
            configs.override(tiny("lm"), {}).data,
            16,
            16,
            jax.make_mesh((1,), ("data",)),
            8,
        )


def test_host_reads_windows_past_32_bit_offsets():
    """Row 2^29 of windows of 16 tokens begins at token 2^33, beyond 32 bits."""

    class Far:
        shape, dtype, nbytes = (2**34,), np.dtype(np.uint16), 2**35
        __getitem__ = lambda self, at: (at % 65_521).astype(np.uint16)

    take, vary = token_files.make_window_readers(16)
    arrays = dict(tokens=Far(), sizes=np.ones((65_521, 2), np.uint8))
    far = datasets.Dataset(arrays, {}, take, None, {}, vary)
    whole = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    rows, words = np.full((1, 2), 2**29, np.int32), np.array([[16, 19]], np.uint32)
    first = (np.arange(20) + 2**33) % 65_521
    for f, places, starts in ((take, (rows,), (0, 0)), (vary, (rows, words), (0, 3))):
        batch = pipelines.BlockReader(far, f, 2, whole, 1).read_block(*places)["tokens"]
        np.testing.assert_array_equal(batch[0], [first[start : start + 17] for start in starts])


def test_divided_product_is_exact_past_32_bits():
    rng = np.random.RandomState(0)
    for n in (1, 3, 60_000, 9_765_625, 2**30 - 1):
        for b in (1, 128, 1_000_003):
            r = np.unique(np.concatenate([rng.randint(0, n, 200), [0, n - 1]])).astype(np.uint32)
            whole, rest = jax.jit(divmod_product, static_argnums=(1, 2))(jnp.asarray(r), b, n)
            exact = r.astype(np.uint64) * b
            np.testing.assert_array_equal(whole, exact // n)
            np.testing.assert_array_equal(rest, exact % n)


def test_large_epoch_visits_distinct_rows_past_32_bit_products():
    """Ten million windows in batches of 512: products of row and batch size reach five
    billion. Batches from the start to the end of the first epoch are compared.
    """
    n, batch = 9_765_625, 512
    rows = jax.jit(order.make_shuffled_rows(n, batch))
    key = jax.random.key(0)
    steps = [0, 1, 8_000, 12_000, n // batch - 1]
    seen = np.concatenate([rows(key, jnp.int32(step)) for step in steps])
    assert (
        len(np.unique(seen)) == len(seen)
        and seen.min() >= 0
        and seen.max() < n
        and np.abs(seen.mean() / n - 0.5) < 0.03
    )
