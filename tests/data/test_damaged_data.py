"""Every data format with flipped, missing and inserted bytes: the file loads or raises
a one-line error, within a time limit.
"""

import gzip
import io
import signal
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from option_files import write_records
from pickles import pickled

from aigc_jax import data
from aigc_jax.data import (
    cifar,
    cleaning,
    corpora,
    decoding,
    fingerprints,
    images,
    tokenizers,
)
from aigc_jax.data import schema as data_schema
from aigc_jax.data.dataset import hash_arrays_and_splits
from aigc_jax.data.tokenizers import huggingface
from aigc_jax.media import music
from aigc_jax.utils import tensor_files
from aigc_jax.utils.errors import UserError, require

pytestmark = pytest.mark.unit

PLAY = "What light through yonder window breaks?\nIt is the east, and Juliet is the sun.\n" * 9
TUNE = "X:1\nT:Air\nM:3/4\nL:1/8\nK:G\nG2|:B2 d2 B>c|(3ABc [GB]2 ^F2|G4 z2:|\n"
SECONDS = 10


def load(name, path, **more):
    ds = data.load(
        ConfigDict(data_schema.DEFAULTS | dict(name=name, path=str(path), length=8) | more)
    )
    ds.take(ds.arrays, np.arange(2))


def noise(*shape):
    return np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)


def saved(save, *args, **more) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *args, **more)
    return buffer.getvalue()


# Each function returns the path and the bytes of a valid file, and its reader.


def idx(root):
    head = b"\0\0\x08\x03" + np.array([20, 7, 7], ">u4").tobytes()
    return root / "a.gz", gzip.compress(head + noise(20, 7, 7).tobytes()), images.read_gzipped_idx


def amat(root):
    lines = "".join(" ".join(map(str, row)) + "\n" for row in noise(4, 784) % 2).encode()
    return root / "a.amat", lines, images.read_amat


def amat_packed(root):
    return root / "a.amat.gz", gzip.compress(amat(root)[1]), images.read_amat


def read_cifar(form, where):
    """Reads and checks the batches of an archive or of its directory."""
    parts = [
        cifar.parse_batch(form, called, raw)
        for _, called, raw in cifar.read_batch_files(form, where)
    ]
    require(parts, "data_batch_1 is missing")
    assert [len(part["x"]) for part in parts] == [cifar.RECORDS]


def cifar_rows():
    return np.hstack([noise(cifar.RECORDS, 1) % 10, noise(cifar.RECORDS, cifar.PIXELS)])


def cifar_binary(root):
    return (
        root / "data_batch_1.bin",
        cifar_rows().tobytes(),
        lambda path: read_cifar("binary", path.parent),
    )


def cifar_python(root):
    rows = cifar_rows()
    return (
        root / "data_batch_1",
        pickled(rows[:, 1:], rows[:, 0].tolist()),
        lambda path: read_cifar("python", path.parent),
    )


def cifar_packed(root):
    def pack(buffer):
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            info = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
            content = cifar_rows().tobytes()
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

    return root / "a.tar.gz", saved(pack), lambda path: read_cifar("binary", path)


def npz(root):
    return (
        root / "a.npz",
        saved(np.savez, x=noise(30, 6, 5), label=np.arange(30) % 3),
        lambda path: load("npz", path),
    )


def npz_packed(root):
    return (
        root / "a.npz",
        saved(np.savez_compressed, x=noise(30, 6, 5) / 255),
        lambda path: load("npz", path),
    )


def token_reader(root):
    huggingface.write(root, tokenizers.build((), ConfigDict(data_schema.DEFAULTS)))
    (root / "val.bin").write_bytes(np.arange(99, dtype=np.uint16).tobytes())
    return lambda path: load(
        "tokens", path.parent, tokenizer="file", tokenizer_path=str(root / "tokenizer.json")
    )


def tokens_nanogpt(root):
    return root / "train.bin", np.arange(200, dtype=np.uint16).tobytes(), token_reader(root)


def tokens_llm_c(root):
    head = np.zeros(256, np.int32)
    head[:3] = 20240520, 1, 200
    return (
        root / "train.bin",
        head.tobytes() + np.arange(200, dtype=np.uint16).tobytes(),
        token_reader(root),
    )


def tokens_npy(root):
    return root / "train.npy", saved(np.save, np.arange(200, dtype=np.uint16)), token_reader(root)


def image_file(suffix):
    def make(root):
        from PIL import Image

        image = Image.fromarray(noise(20, 24, 3) // 16 * 16)
        form = {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)
        packed = dict(compression="tiff_lzw") if suffix == "tif" else {}

        def read(path):
            found = decoding.try_decode_image(path, 8, "rgb")
            if isinstance(found, str):
                raise UserError(found)
            assert found.shape == (8, 8, 3) and found.dtype == np.uint8

        return root / f"a.{suffix}", saved(image.save, form, **packed), read

    return make


def plain_text(root):
    return root / "a.txt", ("\ufeff" + PLAY).encode(), lambda path: load("text", path)


def pairs(root):
    rows = "".join(f"{n}\t{n} é\r\n" for n in range(200)).encode()
    return root / "a.tsv", rows, lambda path: load("pairs", path)


def read_all(name, path, **more):
    """Reads every array of a data set of images or texts."""
    ds = data.load(ConfigDict(data_schema.DEFAULTS | dict(name=name, path=str(path)) | more))
    for array in ds.arrays.values():
        np.asarray(array)


def saved_by_datasets(root, rows, features=None):
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(root / "hf")
    return root / "hf"


def saved_images(root):
    import datasets

    rows = dict(image=[dict(bytes=png_bytes(i), path=None) for i in range(40)], label=[0, 1] * 20)
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"])
    )
    path = saved_by_datasets(root, rows, features) / "data-00000-of-00001.arrow"
    return path, path.read_bytes(), lambda path: read_all("hf", path.parent, size=8)


def saved_texts(root):
    texts = [f"{i} times {PLAY[:20]}" for i in range(120)]
    path = saved_by_datasets(root, dict(text=texts)) / "data-00000-of-00001.arrow"
    return path, path.read_bytes(), lambda path: read_all("hf", path.parent, length=8)


def saved_state(root):
    path = saved_texts(root)[0].with_name("state.json")
    return path, path.read_bytes(), lambda path: read_all("hf", path.parent, length=8)


def saved_info(root):
    path = saved_images(root)[0].with_name("dataset_info.json")
    return path, path.read_bytes(), lambda path: read_all("hf", path.parent, size=8)


def png_bytes(seed) -> bytes:
    from PIL import Image

    image = Image.fromarray(np.random.RandomState(seed).randint(0, 256, (9, 9, 3)).astype(np.uint8))
    return saved(image.save, "png")


def image_records(root):
    pytest.importorskip("array_record.python", reason="array_record exists for Linux only")
    path = root / "train.array_record"
    write_records(path, map(png_bytes, range(40)))
    np.save(root / "train_labels.npy", np.arange(40) % 2)
    return path, path.read_bytes(), lambda path: read_all("array_record", path.parent, size=8)


def text_records(root):
    pytest.importorskip("array_record.python", reason="array_record exists for Linux only")
    path = root / "train.array_record"
    write_records(path, [f"{i} times {PLAY[:20]}" for i in range(120)])
    return path, path.read_bytes(), lambda path: read_all("array_record", path.parent, length=8)


def record_labels(root):
    path = image_records(root)[0].with_name("train_labels.npy")
    return path, path.read_bytes(), lambda path: read_all("array_record", path.parent, size=8)


def tokenizer_file(root):
    config = ConfigDict(data_schema.DEFAULTS | dict(tokenizer="bpe", vocabulary=270))
    good = tokenizers.build([PLAY], config).json
    return root / "a.json", good.encode(), huggingface.read


def tunes(root):
    read = lambda path: [
        music.encode_midi(music.parse_tune(tune), {})
        for tune in corpora.read_nonempty_text(path).split("X:")[1:]
    ]
    return root / "a.abc", (TUNE * 3).encode(), read


def stop_words(root):
    section = lambda path: ConfigDict(data_schema.DEFAULTS | dict(stop_words=str(path)))
    return (
        root / "a.txt",
        b"the\r\nand\r\n",
        lambda path: cleaning.make_cleaner(section(path), "as_is")("the end"),
    )


def safetensors(root):
    from safetensors.numpy import save

    return (
        root / "a.safetensors",
        save(dict(a=noise(9, 9), b=noise(3) / 255)),
        tensor_files.read_tensors,
    )


FORMATS = {
    f.__name__: f
    for f in (
        idx,
        amat,
        amat_packed,
        cifar_binary,
        cifar_python,
        cifar_packed,
        npz,
        npz_packed,
        tokens_nanogpt,
        tokens_llm_c,
        tokens_npy,
        saved_images,
        saved_texts,
        saved_state,
        saved_info,
        image_records,
        text_records,
        record_labels,
        plain_text,
        pairs,
        tokenizer_file,
        tunes,
        stop_words,
        safetensors,
    )
} | {suffix: image_file(suffix) for suffix in ("png", "jpg", "webp", "bmp", "gif", "tif")}


def damage(good: bytes, random) -> bytes:
    """Flips bits, removes the end or middle, inserts bytes or replaces the content."""
    at, other = sorted(random.randint(0, len(good) + 1, 2))
    match random.randint(0, 6):
        case 0 | 1:
            bad = np.frombuffer(good, np.uint8).copy()
            places = random.randint(
                0, min(len(bad), random.choice([32, len(bad)])), random.randint(1, 9)
            )
            bad[places] ^= (1 << random.randint(0, 8, len(places))).astype(np.uint8)
            return bad.tobytes()
        case 2:
            return good[:at]
        case 3:
            return good[:at] + good[other:]
        case 4:
            return (
                good[:at]
                + bytes(random.randint(0, 256, random.randint(1, 40)).tolist())
                + good[at:]
            )
        case _:
            return [b"", good + good, bytes(len(good)), b"\xff" * 9][random.randint(0, 4)]


@pytest.fixture
def time_limit(tmp_path, monkeypatch):
    """A function that starts an alarm of SECONDS; each test has an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cifar, "RECORDS", 20)

    def late(*_):
        raise AssertionError(f"longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    yield lambda: signal.alarm(SECONDS)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def is_readable(read, path: Path) -> bool:
    """Whether `read` accepts the file; a refusal must be a one-line error."""
    try:
        read(path)
        return True
    except UserError as e:
        assert str(e) and "\n" not in str(e)
        return False


@pytest.mark.parametrize("cases", [8, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_load_or_raise_a_one_line_error(tmp_path, time_limit, name, cases):
    (tmp_path / "data").mkdir()
    path, good, read = FORMATS[name](tmp_path / "data")
    path.write_bytes(good)
    time_limit()
    assert is_readable(read, path)
    random = np.random.RandomState(zlib.crc32(name.encode()))
    refused = 0
    for _ in range(cases):
        path.write_bytes(damage(good, random))
        time_limit()
        refused += not is_readable(read, path)
    assert refused > 0
    path.unlink()
    path.mkdir()
    assert not is_readable(read, path)  # a directory in place of the file


@pytest.mark.parametrize("cases", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_damaged_records_load_or_raise_a_one_line_error(tmp_path, time_limit, monkeypatch, cases):
    import tensorflow_datasets as tfds
    from PIL import Image

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        name = "tiny"

        def _info(self):
            features = dict(
                image=tfds.features.Image(shape=(9, 9, 3)),
                label=tfds.features.ClassLabel(num_classes=3),
            )
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return dict(train=self._generate_examples(40))

        def _generate_examples(self, count):
            for i in range(count):
                yield i, dict(image=Image.fromarray(noise(9, 9, 3) + np.uint8(i)), label=i % 3)

    monkeypatch.setattr(Tiny, "pkg_dir_path", tmp_path, raising=False)
    Tiny(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    version = tmp_path / "tiny" / "1.0.0"

    def read(path):
        load("tfds", path)
        ds = data.load(ConfigDict(data_schema.DEFAULTS | dict(name="tfds", path=str(path))))
        ds.arrays["x"][:]

    assert is_readable(read, version)
    first = hash_arrays_and_splits(
        data.load(ConfigDict(data_schema.DEFAULTS | dict(name="tfds", path=str(version))))
    )
    random, files = np.random.RandomState(1), sorted(p for p in version.iterdir() if p.is_file())
    for i in range(cases):
        path = files[i % len(files)]
        good = path.read_bytes()
        path.write_bytes(damage(good, random))
        time_limit()
        is_readable(read, version)
        path.write_bytes(good)
    shard = next(p for p in files if "array_record" in p.name)
    good = shard.read_bytes()
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 1
    shard.write_bytes(bad)  # same size, other content
    with pytest.raises(UserError, match="cannot be read"):
        read(version)
    other = hash_of(shard)
    shard.write_bytes(good)
    assert other != hash_of(shard)
    assert (
        hash_arrays_and_splits(
            data.load(ConfigDict(data_schema.DEFAULTS | dict(name="tfds", path=str(version))))
        )
        == first
    )


def hash_of(path):
    return fingerprints.hash_files([path])


def test_sampled_hash_covers_the_start_middle_and_end(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprints, "HASH_BYTES", 4096)
    monkeypatch.setattr(fingerprints, "PIECE_BYTES", 256)
    content = noise(100_000).tobytes()
    (tmp_path / "a").write_bytes(content)
    first = hash_of(tmp_path / "a")
    for place in (0, int(np.linspace(0, len(content) - 256, 16)[7]), len(content) - 1):
        bad = bytearray(content)
        bad[place] ^= 1
        (tmp_path / "a").write_bytes(bad)
        assert hash_of(tmp_path / "a") != first


def test_gzip_that_contradicts_its_idx_header_is_refused(tmp_path):
    head = b"\0\0\x08\x03" + np.array([2, 7, 7], ">u4").tobytes()
    (tmp_path / "a.gz").write_bytes(gzip.compress(head + bytes(2**22)))
    with pytest.raises(UserError, match="is not a complete IDX file of bytes"):
        images.read_gzipped_idx(tmp_path / "a.gz")
    huge = b"\0\0\x08\x03" + np.array([2**32 - 1] * 3, ">u4").tobytes()
    (tmp_path / "a.gz").write_bytes(gzip.compress(huge + bytes(99)))
    with pytest.raises(
        UserError,
        match="its header declares 79,228,162,458,924,105,385,300,197,375 bytes, more than its",
    ):
        images.read_gzipped_idx(tmp_path / "a.gz")
