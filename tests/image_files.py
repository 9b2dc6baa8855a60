"""The contents of image files that a user could upload, harmless and hostile."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def declared_png(width, height, data=b""):
    """A PNG that declares a size; its pixels are `data`."""

    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def animated_gif():
    out = io.BytesIO()
    frames = [Image.new("L", (16, 16), level) for level in (0, 255)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    return out.getvalue()


def photo(size=(40, 30)):
    out = io.BytesIO()
    ramp = np.linspace(0, 255, size[0] * size[1]).reshape(size[1], size[0]).astype(np.uint8)
    Image.fromarray(ramp).save(out, "PNG")
    return out.getvalue()
