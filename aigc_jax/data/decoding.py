"""Decoding of image files, which are untrusted input, to square images of one size."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.utils.errors import choose, first_line, require
from aigc_jax.utils.files import open_regular_file

if TYPE_CHECKING:
    import PIL.Image
    import PIL.ImageFile

DECODER = 3  # increase when `decode_image` yields other pixels: invalidates older caches
# Image formats that Pillow decodes itself. Of an animation, or of several pages, the
# first image is used.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
SMALLEST, LARGEST = 8, 1024  # bounds of config.data.size, pixels; smaller files are refused
MOST_PIXELS = 100_000_000  # of a file; more may be a decompression bomb
TOO_MANY = f"more than {MOST_PIXELS:,} pixels"
# Mode of a PNG of 2 or 4 bits -> the distance of its grey levels in 8 bits.
GREY_STEPS = {"L;2": 85, "L;4": 17}
# config.data.colour -> Pillow's mode
COLOURS = {"rgb": "RGB", "grey": "L"}


def format_no_image(formats: Sequence[str] = FORMATS) -> str:
    """Return why a file cannot be opened as an image of one of the formats."""
    return f"it is no image of the formats {', '.join(formats)}, or damaged"


def check_image_keys(config: ConfigDict) -> None:
    """Raise a UserError unless config.size and config.colour are valid."""
    choose(COLOURS, config.colour, "config.data.colour")
    require(
        SMALLEST <= config.size <= LARGEST,
        f"config.data.size = {config.size} pixels per side must be between {SMALLEST} and "
        f"{LARGEST}",
    )


def try_decode_image(
    source: Path | bytes, size: int, colour: str
) -> np.ndarray | str:  # uint8 [size, size, C], or why it cannot be decoded
    """Return the decoded image, or a short reason why it cannot be decoded. The
    arguments are those of `decode_image`.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        return decode_image(source, size, colour)
    except Image.DecompressionBombError:  # Pillow's own limit, above MOST_PIXELS
        return TOO_MANY
    except UnidentifiedImageError:
        return f"none of {', '.join(FORMATS)}"
    except Exception as e:
        # Decoders of untrusted files raise errors of many types; none may end the run.
        return first_line(e, 80)


def decode_image(
    source: Path | bytes, size: int, colour: str
) -> np.ndarray:  # -> uint8 [size, size, C]
    """Decode one image as it is meant to be displayed: rotated by its EXIF tag, 16 bits
    scaled to 8, palette and CMYK converted, transparent parts composited on white.
    Resize it by a Lanczos filter with antialiasing until the shorter side is `size`,
    and crop it to the centre.

    Args:
      source: the path of the file, or its contents.
      size: pixels per side of the result.
      colour: a key of COLOURS; C is 3 for rgb, 1 for grey.

    Raises:
      UserError: the image is too small, too large, or of 32 bits. Pillow raises errors
        of other types for files that it cannot decode.
    """
    from PIL import Image, ImageOps

    with open_source(source) as file, Image.open(file, formats=FORMATS) as opened:
        require(opened.width * opened.height <= MOST_PIXELS, TOO_MANY)
        require(
            min(opened.size) >= SMALLEST,
            f"{opened.width} x {opened.height} pixels are fewer than {SMALLEST} per side",
        )
        image = ImageOps.exif_transpose(convert_to_8_bits(opened, file))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = ImageOps.fit(image.convert(COLOURS[colour]), (size, size), Image.Resampling.LANCZOS)
        return np.asarray(image).reshape(size, size, -1)


def open_source(source: Path | bytes) -> BinaryIO:
    """Open a file, or its contents, for reading bytes."""
    return io.BytesIO(source) if isinstance(source, bytes) else open_regular_file(source, "it")


def is_image_file(content: bytes) -> bool:
    """Return whether the contents of a file begin like an image in one of FORMATS."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS):
            return True
    except Image.DecompressionBombError:
        return True
    except Exception:  # of many types, where the beginning of the file is damaged
        return False


def convert_to_8_bits(image: "PIL.ImageFile.ImageFile", file: BinaryIO) -> "PIL.Image.Image":
    """Convert an image to 8 bits per channel.

    Pillow's own conversion would clip 16 bits of grey at 255 and truncate colours to
    the upper byte. It also compares a PNG's transparent colour (tRNS), which has the
    bit depth of the file, with pixels that are scaled to 8 bits
    (https://www.w3.org/TR/png-3/#11tRNS).
    """
    raw = image.tile[0][3] if image.format == "PNG" and image.tile else ""
    clear = image.info.get("transparency")
    if raw in GREY_STEPS and clear is not None:
        image.info["transparency"] = clear * GREY_STEPS[raw]
        return image
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image)
        clear = None if clear is None else pixels == clear
    elif raw == "RGB;16B":
        pixels = read_png_16_bits(image, file)
        clear = None if clear is None else (pixels == clear).all(-1)
    else:
        require(image.mode not in ("I", "F"), f"{image.mode} pixels of 32 bits have no known range")
        return image
    from PIL import Image

    out = Image.fromarray((pixels / 257 + 0.5).astype(np.uint8))
    if clear is not None:
        out.putalpha(Image.fromarray(np.where(clear, 0, 255).astype(np.uint8)))
    out.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return out


def read_png_16_bits(image: "PIL.Image.Image", file: BinaryIO) -> np.ndarray:  # -> uint16 [H, W, 3]
    """Return the colours of a PNG of 16 bits per channel. Pillow decodes the upper byte
    or, with the other byte order, the lower byte.
    """
    from PIL import Image

    upper = np.asarray(image).astype(np.uint16)
    file.seek(0)
    with Image.open(file, formats=("PNG",)) as again:
        codec, extents, offset, _ = again.tile[0][:4]
        again.tile = [type(again.tile[0])(codec, extents, offset, "RGB;16L")]
        return upper << 8 | np.asarray(again)
