"""Images from a directory: decoding, splits, classes, caching, and one-line errors for
invalid files.
"""

import os
import struct
import zlib

import numpy as np
import pytest
from helpers import command_line
from ml_collections import ConfigDict
from PIL import Image

from aigc_jax import data
from aigc_jax.data import decoding
from aigc_jax.data import folder as module
from aigc_jax.data import schema as data_schema
from aigc_jax.data.dataset import hash_arrays_and_splits
from aigc_jax.utils.errors import UserError

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def load(path, **more):
    return data.load(
        ConfigDict(data_schema.DEFAULTS | dict(name="folder", path=str(path), size=8) | more)
    )


def noise(*shape, seed=0):
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def write_images(path, count=60, classes=("",)):
    for i in range(count):
        place = path / classes[i % len(classes)]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(8, 8, 3, seed=i)).save(place / f"{i}.png")
    return path


def save_and_decode(image, path, colour="rgb", size=8, **save):
    image.save(path, **save)
    return decoding.decode_image(path, size, colour).astype(int)


def test_images_of_the_right_size_are_unchanged(tmp_path):
    x = noise(8, 8, 3)
    np.testing.assert_array_equal(save_and_decode(Image.fromarray(x), tmp_path / "a.png"), x)
    np.testing.assert_array_equal(
        save_and_decode(Image.fromarray(x[..., 0]), tmp_path / "b.PNG"), x[..., :1].repeat(3, -1)
    )
    np.testing.assert_array_equal(
        save_and_decode(Image.fromarray(x[..., 0]), tmp_path / "c.png", "grey"), x[..., :1]
    )
    luma = x @ [0.299, 0.587, 0.114]  # ITU-R BT.601
    assert (
        np.abs(save_and_decode(Image.fromarray(x), tmp_path / "a.png", "grey")[..., 0] - luma).max()
        <= 1
    )


def test_transparency_is_composited_on_white(tmp_path):
    x = noise(8, 8, 4)
    alpha = x[..., 3:] / 255
    expected = x[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(save_and_decode(Image.fromarray(x), tmp_path / "a.png") - expected).max() <= 1
    grey = np.stack([x[..., 0], x[..., 3]], -1)
    assert (
        np.abs(
            save_and_decode(Image.fromarray(grey, "LA"), tmp_path / "b.png", "grey")
            - (grey[..., :1] * alpha + 255 * (1 - alpha))
        ).max()
        <= 1
    )


def test_palettes_are_expanded_to_rgb(tmp_path):
    index = (np.arange(64) % 3).reshape(8, 8).astype(np.uint8)
    colours = np.array([[255, 0, 0], [0, 128, 0], [7, 8, 9]])
    image = Image.fromarray(index, "P")
    image.putpalette(colours.astype(np.uint8).tobytes())
    np.testing.assert_array_equal(save_and_decode(image, tmp_path / "a.png"), colours[index])
    colours[1] = 255  # the transparent entry
    np.testing.assert_array_equal(
        save_and_decode(image, tmp_path / "b.png", transparency=1), colours[index]
    )


def test_16_bit_values_are_scaled_not_clipped(tmp_path):
    x = np.random.RandomState(0).randint(0, 2**16, (8, 8)).astype(np.uint16)
    assert (
        np.abs(
            save_and_decode(Image.fromarray(x), tmp_path / "a.png", "grey")[..., 0] - x / 257
        ).max()
        <= 0.5
    )


def test_cmyk_is_converted_and_exif_orientation_applied(tmp_path):
    plain = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red in CMYK
    # The tolerance allows for JPEG and the absence of an ICC profile.
    assert np.abs(save_and_decode(plain, tmp_path / "a.jpg", quality=100) - [255, 0, 0]).max() <= 40
    x = np.zeros((16, 16, 3), np.uint8)
    x[:8], x[8:, :8] = [250, 0, 0], [0, 0, 250]  # the upper half, and the lower left quarter
    for tag, turned in {3: x[::-1, ::-1], 6: np.rot90(x, -1), 8: np.rot90(x)}.items():
        exif = Image.Exif()
        exif[0x0112] = tag
        got = save_and_decode(
            Image.fromarray(x), tmp_path / "b.jpg", size=16, exif=exif, quality=100, subsampling=0
        )
        assert np.abs(got - turned).mean() < 3, tag
    assert (
        np.abs(
            save_and_decode(
                Image.fromarray(x), tmp_path / "c.jpg", size=16, quality=100, subsampling=0
            )
            - x
        ).mean()
        < 3
    )


def test_centre_is_cropped_and_downsampling_averages(tmp_path):
    x = np.zeros((32, 96, 3), np.uint8)
    x[:, :32], x[:, 32:64], x[:, 64:] = [255, 0, 0], [0, 255, 0], [0, 0, 255]
    whole = np.asarray(Image.fromarray(x).resize((24, 8), Image.Resampling.LANCZOS)).astype(int)
    wide = save_and_decode(Image.fromarray(x), tmp_path / "a.png")
    assert np.abs(wide - whole[:, 8:16]).max() <= 1 and (np.argmax(wide, -1) == 1).all()
    tall = save_and_decode(Image.fromarray(x.swapaxes(0, 1)), tmp_path / "b.png")
    assert np.abs(tall - wide.swapaxes(0, 1)).max() <= 1
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    # Nearest-neighbour sampling would give 0 or 255.
    assert (
        np.abs(save_and_decode(Image.fromarray(board), tmp_path / "c.png", "grey") - 127.5).max()
        < 3
    )
    assert save_and_decode(Image.fromarray(noise(8, 8, 3)), tmp_path / "d.png", size=32).shape == (
        32,
        32,
        3,
    )


def test_split_of_an_image_is_independent_of_other_images(tmp_path):
    def split_of(ds):
        where = {}
        for name, (start, count) in ds.splits.items():
            where |= {ds.arrays["x"][i].tobytes(): name for i in range(start, start + count)}
        return where

    before = split_of(load(write_images(tmp_path / "a", 60)))
    after = split_of(load(write_images(tmp_path / "a", 400)))
    assert before == {k: after[k] for k in before} and len(before) == 60
    shares = [sum(v == name for v in after.values()) / 400 for name in ("train", "valid", "test")]
    # Three standard errors of 400 draws.
    assert np.abs(np.array(shares) - [0.8, 0.1, 0.1]).max() < 0.06
    two = load(tmp_path / "a", split="80/20")
    assert two.splits["valid"] == two.splits["test"] and sum(two.splits["valid"]) == len(
        two.arrays["x"]
    )
    assert {k for k, v in after.items() if v == "train"} == {
        k for k, v in split_of(two).items() if v == "train"
    }


def test_directories_are_classes(tmp_path):
    ds = load(write_images(tmp_path / "a", 90, ("cat", "dog", "dog/puppy")))
    assert ds.spec.classes == 3 and ds.about["classes"] == {"cat": 30, "dog": 30, "dog/puppy": 30}
    by_picture = {noise(8, 8, 3, seed=i).tobytes(): i % 3 for i in range(90)}
    assert [by_picture[x.tobytes()] for x in ds.arrays["x"]] == ds.arrays["label"].tolist()
    assert "label" not in load(write_images(tmp_path / "b")).arrays


def test_decoded_images_are_cached_until_a_file_changes(tmp_path, monkeypatch, capsys):
    write_images(tmp_path / "a")
    (tmp_path / "a" / "broken.png").write_bytes(b"no picture")
    calls = []
    real = decoding.decode_image
    monkeypatch.setattr(
        decoding, "decode_image", lambda path, *rest: calls.append(path) or real(path, *rest)
    )
    first = load(tmp_path / "a")
    assert (
        len(calls) == 61
        and "skipped 1 of 61 images (broken.png: none of PNG, JPEG, WEBP, BMP, GIF, TIFF)"
        in capsys.readouterr().err
    )
    again = load(tmp_path / "a")
    assert len(calls) == 61 and "skipped 1 of 61" in capsys.readouterr().err
    np.testing.assert_array_equal(first.arrays["x"], again.arrays["x"])
    assert hash_arrays_and_splits(first) == hash_arrays_and_splits(again)
    load(tmp_path / "a", colour="grey")
    assert len(calls) == 122
    Image.fromarray(noise(8, 8, 3, seed=999)).save(tmp_path / "a" / "0.png")
    load(tmp_path / "a")
    assert len(calls) == 183
    for cached in module.cache_dir("images").glob("*.npy"):
        cached.write_bytes(cached.read_bytes()[:-200])
    third = load(tmp_path / "a")
    assert len(calls) == 244 and "is damaged: decoding again" in capsys.readouterr().err
    # The array is a read-only memory map.
    assert isinstance(third.arrays["x"], np.memmap) and not third.arrays["x"].flags.writeable
    assert not list(module.cache_dir("images").glob("*.part"))


def test_invalid_files_are_skipped_and_named_in_one_line(tmp_path, capsys):
    write_images(tmp_path / "a")
    whole = (tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / "a" / "half.png").write_bytes(whole[:60])
    (tmp_path / "a" / "text.jpg").write_text("words")
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "a" / "one.png")
    (tmp_path / "a" / "notes.txt").write_text("not looked at")
    (tmp_path / "a" / ".hidden.png").write_text("nor this")
    assert len(load(tmp_path / "a").arrays["x"]) == 60
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("skipped 4 of 64 images (")
    for words in (
        "half.png: ",
        "text.jpg: none of PNG, JPEG, WEBP, BMP, GIF, TIFF",
        "gone.png: ",
        "one.png: 1 x 1 pixels are fewer than 8 per side",
    ):
        assert words in lines[0]


def png(width, height, bits, colour, rows, clear=b""):
    """The bytes of a PNG file, built according to the standard. colour: 0 grey, 2 RGB;
    clear: the tRNS chunk.
    """

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    middle = (chunk(b"tRNS", clear) if clear else b"") + chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + head + middle + chunk(b"IEND", b"")


def bomb(path, side):
    """Writes a PNG of side x side black pixels that compress to few bytes."""
    path.write_bytes(png(side, side, 1, 0, bytes((1 + (side + 7) // 8) * side)))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_png_transparent_grey_is_white_at_any_bit_depth(tmp_path, bits):
    top = 2**bits - 1
    values = np.random.RandomState(bits).randint(0, top + 1, (8, 8))
    values[0, :2], values[0, 2] = [top // 3, min(top // 3 + 1, top)], 0
    words = ["".join(format(v, f"0{bits}b") for v in row) for row in values]
    rows = b"".join(b"\0" + int(word, 2).to_bytes(bits, "big") for word in words)
    for clear in (top // 3, 0):
        (tmp_path / "a.png").write_bytes(png(8, 8, bits, 0, rows, struct.pack(">H", clear)))
        right = np.where(values == clear, 255, np.floor(values * 255 / top + 0.5))
        np.testing.assert_array_equal(
            decoding.decode_image(tmp_path / "a.png", 8, "grey")[..., 0], right
        )
    (tmp_path / "a.png").write_bytes(png(8, 8, bits, 0, rows))
    np.testing.assert_array_equal(
        decoding.decode_image(tmp_path / "a.png", 8, "grey")[..., 0],
        np.floor(values * 255 / top + 0.5),
    )


def test_png_transparent_colour_is_white_at_8_and_16_bits(tmp_path):
    for bits in (8, 16):
        top = 2**bits - 1
        values = np.random.RandomState(bits).randint(0, top + 1, (8, 8, 3))
        # With 16 bits, both colours are equal in their upper bytes.
        values[0, 0], values[0, 1] = [10, 20, 30], [10, 20, 31]
        rows = b"".join(
            b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in values
        )
        (tmp_path / "a.png").write_bytes(png(8, 8, bits, 2, rows, struct.pack(">HHH", 10, 20, 30)))
        right = np.floor(values * 255 / top + 0.5)
        right[0, 0] = 255
        np.testing.assert_array_equal(decoding.decode_image(tmp_path / "a.png", 8, "rgb"), right)


def test_multi_frame_files_decode_to_their_first_frame(tmp_path):
    first, second = noise(8, 8, 3) // 16 * 16, noise(8, 8, 3, seed=1)
    frames = [Image.fromarray(x) for x in (first, second)]
    for name, more in (("a.webp", dict(lossless=True)), ("a.tiff", {}), ("a.png", {})):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **more)
        np.testing.assert_array_equal(
            decoding.decode_image(tmp_path / name, 8, "rgb"), first, err_msg=name
        )
    greys = [Image.fromarray(x[..., 0]) for x in (first, second)]
    greys[0].save(tmp_path / "a.gif", save_all=True, append_images=greys[1:])
    np.testing.assert_array_equal(
        decoding.decode_image(tmp_path / "a.gif", 8, "grey")[..., 0], first[..., 0]
    )
    frames[0].save(tmp_path / "a.bmp")
    np.testing.assert_array_equal(decoding.decode_image(tmp_path / "a.bmp", 8, "rgb"), first)


def test_pixel_modes_and_orientations_decode_across_formats(tmp_path):
    x = np.random.RandomState(0).randint(0, 2**16, (8, 8)).astype(np.uint16)
    assert (
        np.abs(
            save_and_decode(Image.fromarray(x), tmp_path / "a.tif", "grey")[..., 0] - x / 257
        ).max()
        <= 0.5
    )
    bits = noise(8, 8) > 127
    for name in ("b.tif", "b.png", "b.bmp"):
        np.testing.assert_array_equal(
            save_and_decode(Image.fromarray(bits), tmp_path / name, "grey")[..., 0], 255 * bits
        )
    y = noise(16, 8, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, more in (("c.tif", {}), ("c.png", {}), ("c.webp", dict(lossless=True))):
        got = save_and_decode(Image.fromarray(y), tmp_path / name, size=8, exif=exif, **more)
        np.testing.assert_array_equal(got, np.rot90(y, -1)[:, 4:12], err_msg=name)  # rotated once
    index = (np.arange(64) % 3).reshape(8, 8).astype(np.uint8)
    image = Image.fromarray(index, "P")
    image.putpalette([200, 0, 0, 0, 128, 0, 7, 8, 9])
    got = save_and_decode(image, tmp_path / "d.gif", transparency=1)
    np.testing.assert_array_equal(got, np.array([[200, 0, 0], [255] * 3, [7, 8, 9]])[index])


def test_non_regular_files_are_skipped_and_named(tmp_path, capsys):
    root = write_images(tmp_path / "a", 60, ("cat", "dog"))
    write_images(tmp_path / "other", 4)
    os.mkfifo(root / "fifo.png")
    (root / "null.png").symlink_to("/dev/zero")
    (root / "out.png").symlink_to(tmp_path / "other" / "0.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "cat" / "inside.png").symlink_to(root / "dog" / "1.png")
    (root / "birds").symlink_to(tmp_path / "other")
    (root / "photo.HEIC").write_text("x")
    Image.fromarray(noise(8, 8)).convert("I").save(root / "deep.tiff")
    ds = load(root)
    assert ds.about["classes"] == {"cat": 31, "dog": 30}  # links within the directory are read
    line = capsys.readouterr().err
    assert line.startswith(
        "skipped 7 of 68 images (birds: is a link to a directory; fifo.png: is a FIFO; "
    )
    for name, reason in (
        ("loop.png", "is a link to itself"),
        ("null.png", "is a link to a file outside the directory"),
        ("out.png", "is a link to a file outside the directory"),
    ):
        assert f"{name}: {reason}" in line
    paths, skipped = module.files.find_readable_files(root, module.SUFFIXES, module.NOT_READ)
    assert len(paths) == 62 and skipped["photo.HEIC"] == ".heic files are not read"
    assert (
        decoding.try_decode_image(root / "deep.tiff", 8, "grey")
        == "I pixels of 32 bits have no known range"
    )
    assert (
        decoding.try_decode_image(root / "fifo.png", 8, "grey")
        == "it is a FIFO, and must be a regular file"
    )


@pytest.mark.parametrize("side", [10_001, 30_000])  # below and above the limit of Pillow
def test_decompression_bombs_are_skipped_before_decoding(tmp_path, capsys, monkeypatch, side):
    write_images(tmp_path / "a")
    bomb(tmp_path / "a" / "bomb.png", side)
    pixels = []
    real = Image.Image.load
    monkeypatch.setattr(
        Image.Image, "load", lambda image: pixels.append(image.width * image.height) or real(image)
    )
    assert (
        len(load(tmp_path / "a").arrays["x"]) == 60
        and max(pixels, default=0) <= decoding.MOST_PIXELS
    )
    assert (
        capsys.readouterr().err
        == "skipped 1 of 61 images (bomb.png: more than 100,000,000 pixels)\n"
    )


def test_invalid_directories_and_keys_raise_one_line_errors(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("words")
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "a.png").write_text("words")
    write_images(tmp_path / "few", 3)
    for path, more, words in (
        ("", {}, "must name a directory of images"),
        (
            tmp_path / "emty",
            {},
            "is not a directory of images for config.data.name = 'folder'; did you mean 'empty'?",
        ),
        (tmp_path / "empty", {}, "has no file that ends in .png, .jpg, .jpeg"),
        (tmp_path / "texts", {}, "has no file that ends in .png, .jpg, .jpeg"),
        (
            tmp_path / "fake",
            {},
            "none of its 1 images is readable; the first: none of PNG, JPEG, WEBP, BMP, GIF, TIFF",
        ),
        (tmp_path / "few", {}, "examples are too few to split"),
        (
            tmp_path / "few",
            dict(size=7),
            "config.data.size = 7 pixels per side must be between 8 and 1024",
        ),
        (
            tmp_path / "few",
            dict(colour="gray"),
            "config.data.colour = 'gray' is none of rgb, grey; did you mean 'grey'?",
        ),
        (
            tmp_path / "few",
            dict(split="80/10"),
            "config.data.split = '80/10' is none of 80/10/10, 80/20",
        ),
    ):
        with pytest.raises(UserError, match=".*") as e:
            load(path, **more)
        assert words in str(e.value) and "\n" not in str(e.value)


def test_damaged_unwritable_cache_is_not_reused(tmp_path, monkeypatch):
    """The damaged file must not be taken for the newly written one."""
    # A copy, because the memory-mapped file is damaged below.
    first = np.array(load(write_images(tmp_path / "a")).arrays["x"])
    array = next(module.cache_dir("images").glob("*.npy"))
    array.write_bytes(array.read_bytes()[:-200])
    real = module.array_cache.os.replace

    def full(source, target):
        if str(target).endswith(".npy"):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(module.array_cache.os, "replace", full)
    for _ in range(2):
        np.testing.assert_array_equal(load(tmp_path / "a").arrays["x"], first)


def test_unwritable_cache_only_warns(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(load(write_images(tmp_path / "a")).arrays["x"]) == 60
    assert "decoded images cannot be cached in" in capsys.readouterr().err


def test_unreachable_image_size_is_a_one_line_error(tmp_path):
    write_images(tmp_path / "a")
    words = (
        "--config=configs/dcgan_folder.py",
        f"--config.data.path={tmp_path / 'a'}",
        "--config.data.size=72",
    )
    done = command_line("train", *words, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 1 and done.stderr == (
        "error: config.model.g.channels = (128, 64, 32) with last_stride = 2 generate multiples "
        "of 16 pixels, not 72 x 72; "
        "change the number of channels or the size of the images\n"
    )
    assert not (tmp_path / "run" / "config.json").exists()
