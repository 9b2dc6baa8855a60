"""The user's own arrays: images or points, perhaps with labels, in an .npz file."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data import files
from aigc_jax.data.dataset import Dataset, make_image_dataset, make_point_dataset, split_80_10_10
from aigc_jax.utils.disk import file_sha256
from aigc_jax.utils.errors import UserError, choose, first_line, require
from aigc_jax.utils.files import open_regular_file
from aigc_jax.utils.memory import require_fits_memory

SPLITS = ("train", "valid", "test")
NAMES = {
    f"{prefix}{name}" for prefix in ("", *(f"{s}_" for s in SPLITS)) for name in ("x", "label")
}
# config.data.range -> the values of black and white
VALUES = {"0..255": (0, 255), "0..1": (0, 1), "-1..1": (-1, 1)}
RANGES = {"auto": None, **VALUES}
# config.data.layout -> the channel axis of [N, ?, ?, ?]
LAYOUTS = {"auto": None, "NHWC": 3, "NCHW": 1}
BRIGHT = 128  # integers with a smaller maximum may be in 0..255, or in a range of their own
CHANNELS = ((1, 3), (2, 4))  # usual numbers of channels, and less usual ones
ROUNDING = 1e-5  # fraction of the range by which values may exceed it
MOST_CLASSES = 2**16


def load_npz(config: ConfigDict, _data_dir: str, _download: bool) -> Dataset:
    """Load the arrays in data.path=FILE.npz: `x`, images [N, H, W], [N, H, W, C] or
    [N, C, H, W], or points [N, D] of floats; optionally `label` [N]. Split 80/10/10,
    unless the file has train_x, valid_x and test_x.

    The range of the values and the channel axis are inferred where they are
    unambiguous; otherwise a UserError requests data.range or data.layout.
    """
    wanted = "a .npz file of x and label, as np.savez writes it,"
    path = files.find_config_file(config, wanted)
    raw = read_npz_arrays(path, f"config.data.path = {config.path!r}")
    is_split = "train_x" in raw
    for name in (f"{s}_x" for s in SPLITS if is_split):
        require(name in raw, f"{path} has train_x but no {name}")
    parts = {
        p: validate_split(path, raw, p) for p in ([f"{s}_" for s in SPLITS] if is_split else [""])
    }
    first = next(iter(parts.values()))["x"]
    kinds = {(a["x"].shape[1:], a["x"].dtype, "label" in a) for a in parts.values()}
    require(len(kinds) == 1, f"{path}: the splits differ in shape, type or labels")
    about = dict(source=str(path), licence="the user's own", files={path.name: file_sha256(path)})
    name = f"{path}: " + ("train_x" if is_split else "x")
    convert = convert_points if first.ndim == 2 else convert_images
    converted, levels, values = convert(name, [a["x"] for a in parts.values()], config)
    splits = {p: a | dict(x=x) for (p, a), x in zip(parts.items(), converted, strict=True)}
    splits = {s: splits[f"{s}_"] for s in SPLITS} if is_split else split_80_10_10(splits[""])
    if first.ndim == 2:
        return make_point_dataset(splits, about)
    labels = [a["label"] for a in splits.values() if "label" in a]
    classes = 1 + max((int(label.max(initial=0)) for label in labels), default=-1)
    return make_image_dataset(splits, levels, about | dict(values=values), classes)


def read_npz_arrays(path: Path, error_name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a file whose names are in NAMES; others are not read. Raise
    a UserError where the file is invalid.

    Args:
      path: the file.
      error_name: the file in error messages.
    """
    with open_regular_file(path, error_name) as file:
        # NumPy would advise to unpickle any other file.
        known = file.read(6).startswith((b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY"))
        require(known, f"{error_name} is not a .npz file, which np.savez writes")
        file.seek(0)
        try:
            archive = np.load(file, allow_pickle=False)
            require(
                isinstance(archive, np.lib.npyio.NpzFile),
                f"{error_name} is a single array (.npy); save it as x: np.savez(FILE, x=array)",
            )
            require(
                {"x", "train_x"} & set(archive.files),
                f"{path} has no array 'x'; it has {', '.join(archive.files) or 'none'}",
            )
            check_arrays_fit_memory(error_name, archive)
            return {key: archive[key] for key in archive.files if key in NAMES}
        except UserError:
            raise
        except Exception as e:  # zipfile, NumPy and zlib raise errors of their own types
            raise UserError(f"{error_name} is not a readable .npz file: {first_line(e)}") from None


def check_arrays_fit_memory(error_name: str, archive: np.lib.npyio.NpzFile) -> None:
    """Raise a UserError where the arrays of an open file would not fit in the memory:
    compressed bytes may expand a thousandfold.
    """
    members = {f"{key}.npy" for key in NAMES} | NAMES
    assert archive.zip is not None  # true of every open file
    needed = sum(
        member.file_size for member in archive.zip.infolist() if member.filename in members
    )
    require_fits_memory(needed, f"{error_name}: its arrays")


def validate_split(
    path: Path, arrays: dict[str, np.ndarray], prefix: str
) -> dict[str, np.ndarray]:  # -> {"x": [N, ...], "label": int32 [N]}
    """Return the validated arrays of one split: x, converted to float32 if it has
    floats, and label, if present, as int32.

    Args:
      path: of the file, for error messages.
      arrays: {name: array} of the file.
      prefix: of the names of this split's arrays: "train_", for example, or "".
    """
    name, x = f"{path}: {prefix}x", arrays[prefix + "x"]
    require(
        x.ndim in (2, 3, 4) and x.dtype.kind in "buif",
        f"{name} is {x.dtype} {x.shape}; it must be images [N, H, W], [N, H, W, C] or "
        "[N, C, H, W], or points [N, D], of numbers",
    )
    require(x.size > 0, f"{name} is empty: {x.shape}")
    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):  # overflow is reported below
            x = x.astype(np.float32)
        finite = np.isfinite(x).reshape(len(x), -1).all(1)
        require(
            bool(finite.all()),
            f"{name} has values that are not finite in float32, "
            f"the first in example {int(np.argmin(finite)):,}",
        )
    if prefix + "label" not in arrays:
        return dict(x=x)
    return dict(
        x=x, label=convert_labels(f"{path}: {prefix}label", arrays[prefix + "label"], len(x))
    )


def convert_labels(
    error_name: str, labels: np.ndarray, num_examples: int
) -> np.ndarray:  # -> int32 [N]
    """Return labels of any dtype as int32. Raise a UserError where they are not
    integers 0 .. MOST_CLASSES - 1.

    Args:
      error_name: the array in error messages.
      labels: [N], of any numeric or bool dtype.
      num_examples: number of examples N.
    """
    require(
        labels.shape == (num_examples,) and labels.dtype.kind in "buif",
        f"{error_name} is {labels.dtype} {labels.shape}; it must be integers from 0, "
        f"[{num_examples}]",
    )
    # a comparison with NaN is false
    is_label = (
        (labels >= 0)
        & (labels < MOST_CLASSES)
        & (labels == np.floor(labels) if labels.dtype.kind == "f" else True)
    )
    worst = int(np.argmin(is_label))
    require(
        bool(is_label.all()),
        f"{error_name} of example {worst:,} is {labels[worst]}; "
        f"labels are integers from 0 to {MOST_CLASSES - 1:,}, "
        "0 to K - 1 for K classes",
    )
    return labels.astype(np.int32)


def convert_points(
    error_name: str, parts: list[np.ndarray], config: ConfigDict
) -> tuple[list[np.ndarray], int, str]:  # parts [N, D] unchanged, 0, ""
    """Return points unchanged, white = 0 and no range, as `convert_images` otherwise.

    Args:
      error_name: the array in error messages.
      parts: the points [N, D] of each split.
      config: the `data` section of a config; range and layout must be "auto".

    Raises:
      UserError: `parts` are not floats, or the config has keys for images.
    """
    require(
        parts[0].dtype.kind == "f",
        f"{error_name} is {parts[0].dtype} {parts[0].shape}; "
        "points [N, D] must be floats, "
        "and images have a shape: [N, H, W]",
    )
    for key in ("range", "layout"):
        require(
            config[key] == "auto",
            f"config.data.{key} = {config[key]!r} is for images, "
            f"and {error_name} is points {parts[0].shape}",
        )
    return parts, 0, ""


def convert_images(
    error_name: str, parts: list[np.ndarray], config: ConfigDict
) -> tuple[list[np.ndarray], int, str]:  # parts [N, H, W, C] of 0 .. white, white, for the user
    """Convert images to [N, H, W, C] with values 0 .. white.

    Args:
      error_name: the array in error messages.
      parts: the images of each split.
      config: the `data` section of a config, with range and layout.

    Returns:
      The images, as uint8 where all values are integers and black is 0, otherwise as
      float32; white; and the range and layout of the input, for the user.
    """
    layout = infer_layout_if_auto(error_name, parts[0].shape, config.layout)
    if parts[0].ndim == 3:
        parts = [x[..., None] for x in parts]
    elif layout == "NCHW":
        parts = [np.ascontiguousarray(x.transpose(0, 2, 3, 1)) for x in parts]
    is_integer = parts[0].dtype.kind != "f" or all((x == np.rint(x)).all() for x in parts)
    range_key = infer_range_if_auto(error_name, parts, is_integer, config.range)
    low, high = VALUES[range_key]
    to_bytes = lambda x: x.astype(np.uint8)
    shift = lambda x: x.astype(np.float32).clip(low, high) - np.float32(low)
    return (
        list(map(to_bytes if is_integer and low == 0 else shift, parts)),
        high - low,
        f"{range_key}, {layout}",
    )


def infer_layout_if_auto(
    error_name: str, shape: tuple[int, ...], layout: str
) -> str:  # NHW, NHWC or NCHW
    """Return NHW, NHWC or NCHW: `layout` itself, unless it is "auto", or the layout in
    which the channel axis, and no other, has a usual number of channels.

    Args:
      error_name: the array in error messages.
      shape: [N, H, W] or of four axes.
      layout: config.data.layout, a key of LAYOUTS.

    Raises:
      UserError: the channel axis is ambiguous, or the array is a single image.
    """
    choose(LAYOUTS, layout, "config.data.layout")
    if len(shape) == 3:
        require(
            shape[2] != 3 or min(shape[:2]) < 8,
            f"{error_name} is {shape}: one image [H, W, C], "
            "or grey ones of 3 columns; "
            "one image needs the axis N, grey ones the axis C",
        )
        return "NHW"
    if layout != "auto":
        return layout
    for usual in CHANNELS:
        layouts = [key for key, axis in LAYOUTS.items() if axis and shape[axis] in usual]
        if len(layouts) == 1:
            return layouts[0]
        if layouts:
            break
    raise UserError(
        f"{error_name} is {shape}, whose channel axis is ambiguous: "
        "set config.data.layout to NHWC or NCHW"
    )


def infer_range_if_auto(
    error_name: str, parts: list[np.ndarray], is_integer: bool, range_key: str
) -> str:  # a key of VALUES, such as "0..255"
    """Return the key of VALUES for the range of the values: `range_key`, unless it is
    "auto", or the only possible range.

    Args:
      error_name: the array in error messages.
      parts: the images of each split.
      is_integer: whether all values are integers.
      range_key: config.data.range, a key of RANGES.

    Raises:
      UserError: the range is ambiguous, or values are outside of it.
    """
    choose(RANGES, range_key, "config.data.range")
    low, high = min(x.min().item() for x in parts), max(x.max().item() for x in parts)

    def inside(key):
        black, white = VALUES[key]
        slack = ROUNDING * (white - black)
        return black - slack <= low and high <= white + slack

    span = f"{error_name} spans [{low:g}, {high:g}]" + (" in integers" if is_integer else "")
    if range_key != "auto":
        require(inside(range_key), f"{span}, and config.data.range = {range_key!r}")
        return range_key
    if low < high and inside("0..1"):
        return "0..1"
    if low < high and inside("-1..1"):
        return "-1..1"
    if is_integer and inside("0..255") and low < high and high >= BRIGHT:
        return "0..255"
    ranges = [key for key in VALUES if inside(key)]
    remedy = "scale them to 0..255, 0..1 or -1..1"
    if ranges:
        remedy = f"set config.data.range to the values of black and white, {' or '.join(ranges)}"
    raise UserError(f"{span}, which leaves the values of black and white ambiguous: {remedy}")
