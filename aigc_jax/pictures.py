"""Pictures of arrays and rows: sample grids, scatter plots, curves. Pillow and matplotlib are imported where they are used."""

import io
import math

import numpy as np

from aigc_jax.stored import write_atomically


def shape_of_grid(num: int) -> tuple[int, int]:
    """(rows, columns) for num cells: filled exactly where the sides stay within 1 : 2.5, else nearly square."""
    rows = max(r for r in range(1, math.isqrt(num) + 1) if num % r == 0)
    if num / rows <= 2.5 * rows:
        return rows, num // rows
    columns = math.isqrt(num - 1) + 1
    return -(-num // columns), columns


def to_uint8(images: np.ndarray) -> np.ndarray:  # in [-1, 1] -> 0 .. 255
    """Grey levels of an 8-bit file: (x + 1) 127.5, rounded half up, clipped. NaN becomes 128."""
    return (np.clip(np.nan_to_num(images), -1, 1) * 127.5 + 128).astype(np.uint8)


def as_saved(samples: np.ndarray, spec) -> np.ndarray:  # [N, ...] -> the same shape
    """Samples as a file holds them, which is what metrics measure: images [N, (K,) H, W, C] are
    clipped to [-1, 1] and, where the data are whole grey levels, rounded to the 256 levels of a
    PNG, the same numbers as those of 8-bit data. What is not finite becomes NaN; whatever is no
    image (points, latents, likelihoods, tokens) is left alone."""
    if spec.kind != "image" or samples.shape[1:][-3:] != tuple(spec.shape):
        return samples
    if spec.levels:
        out = to_uint8(samples).astype(np.float32)
        out += out
        out -= np.float32(255)  # exact: only the product rounds, as in data.dataset.images_of
        out *= np.float32(1 / 255)
    else:
        out = np.clip(samples, -1, 1)
    out[~np.isfinite(samples)] = np.nan
    return out


def grid(images: np.ndarray, columns=None) -> np.ndarray:  # [N, H, W, C] in [-1, 1] -> [H', W', C] uint8
    """The pictures side by side with a line of two pixels between them, small ones enlarged to about 56 pixels."""
    n, h, w, c = images.shape
    scale = max(1, round(56 / max(h, w)))
    pixels = to_uint8(images)
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    rows, columns = (-(-n // columns), columns) if columns else shape_of_grid(n)
    h, w, gap = h * scale, w * scale, 2
    out = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, c), 128, np.uint8)
    for i, picture in enumerate(pixels):
        y, x = (i // columns) * (h + gap), (i % columns) * (w + gap)
        out[y : y + h, x : x + w] = picture
    return out


def save_png(path, pixels: np.ndarray, origin: dict[str, str]):  # [H, W, C] uint8, C of 1 or 3
    """A PNG with its origin in text chunks."""
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    for key, value in origin.items():
        info.add_text(key, str(value))
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG", pnginfo=info)
    write_atomically(path, buffer.getvalue())


def is_drawable(shape, spec) -> bool:
    """Whether a sample of this shape is an image or a point of the data's own space, or several of one example [K, ...]."""
    own = tuple(spec.shape)
    several = len(shape) - len(own) in (0, 1) and tuple(shape[-len(own) :]) == own
    return several and spec.kind in ("image", "points")


def save_samples(path, samples: np.ndarray, spec, origin: dict[str, str], columns=None):
    """Samples that are drawable: images in a grid, several [N, K, H, W, C] of one example above one another, and channels
    that are neither grey nor RGB as grey images likewise; points in the plane over the modes of the data, several [N, K, D] of one example
    joined by lines."""
    if not is_drawable(samples.shape[1:], spec):
        raise ValueError(f"samples {list(samples.shape)} are no {spec.kind} {list(spec.shape)}")
    if spec.kind == "image":
        height, width, channels = spec.shape
        if channels not in (1, 3):
            samples, channels = np.moveaxis(samples.reshape(-1, *spec.shape), -1, 1).reshape(len(samples), -1, height, width, 1), 1
        save_png(path, grid(samples.reshape(len(samples), -1, width, channels), columns), origin)
    else:
        save_scatter(path, samples.reshape(len(samples), -1, samples.shape[-1]), spec, origin)


def _figure(width, height):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=100)


def _save_figure(path, figure, origin):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={k: str(v) for k, v in origin.items()})
    write_atomically(path, buffer.getvalue())


def save_scatter(path, samples: np.ndarray, spec, origin):  # [N, K, D]: the first two coordinates
    figure = _figure(5, 5)
    axes = figure.subplots()
    x, y = samples[..., 0], samples[..., min(1, samples.shape[-1] - 1)]  # [N, K]
    axes.plot(x.T, y.T, color="0.7", linewidth=0.5)
    for k in range(x.shape[1]):
        label = f"{len(x)} samples" if x.shape[1] == 1 else f"of each of {len(x)} the {('first', 'second')[k]}"
        axes.scatter(x[:, k], y[:, k], s=9, alpha=0.5, linewidths=0, label=label)
    if spec.centres is not None:
        axes.plot(spec.centres[:, 0], spec.centres[:, 1], "+", color="black", markersize=9, label="modes of the data")
        reach = 1.4 * np.abs(spec.centres).max()
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
    axes.set_aspect("equal")
    axes.legend(loc="upper right", fontsize=8)
    _save_figure(path, figure, origin)


def save_separability(path, sets: np.ndarray, scores: np.ndarray, told: float, origin, shown=16):  # [2, k, H, W, C], [2, k], in the order of scores
    """What a linear classifier says of examples and of samples: its scores, the share that it is right about, and the pictures that it is surest of
    on either side."""
    figure = _figure(9, 5.4)
    axes = figure.subplots(5, 1, height_ratios=(3.4, 1, 1, 1, 1))
    reach = np.quantile(scores, (0.001, 0.999))
    for name, values, colour in zip(("examples", "samples"), scores, ("tab:blue", "tab:orange"), strict=True):
        axes[0].hist(values, np.linspace(*reach, 81), alpha=0.6, label=f"{len(values):,} {name}", color=colour)
    axes[0].axvline(0, color="black", linewidth=0.8)
    axes[0].set_title(f"a linear classifier tells {told:.1%} of them: samples left, examples right", fontsize=9)
    axes[0].legend(fontsize=8)
    strips = {"the surest of samples": sets[1, :shown], "samples it takes for examples": sets[1, ::-1][:shown],
              "examples it takes for samples": sets[0, :shown], "the surest of examples": sets[0, ::-1][:shown]}  # fmt: skip
    for ax, (title, images) in zip(axes[1:], strips.items(), strict=True):
        pixels = grid(images, shown)
        ax.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
        ax.set_title(title, fontsize=8)
        ax.set_axis_off()
    _save_figure(path, figure, origin)


COLOURS = {"train": "tab:orange", "valid": "tab:blue", "test": "tab:green"}


def save_curves(path, rows: list[dict], origin: dict[str, str]):
    """One panel per value, one line per split, over training steps."""
    names = list(dict.fromkeys(k for row in rows for k, v in row.items() if k not in ("step", "split")))
    if not names:
        return
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = _figure(4.2 * columns, 2.8 * lines)
    panels = figure.subplots(lines, columns, squeeze=False).flat
    for name, axes in zip(names, panels, strict=False):  # names first: zip must not take a panel that it does not use
        for split, colour in COLOURS.items():
            points = [(row["step"], row[name]) for row in rows if row["split"] == split and row.get(name) is not None]
            if points:
                style = dict(linewidth=0.8, alpha=0.7) if len(points) > 50 else dict(marker=".", linewidth=1.2)
                axes.plot(*zip(*points, strict=True), label=split, color=colour, **style)
        values = [row[name] for row in rows if row.get(name) is not None]
        if values and min(values) > 0 and max(values) > 30 * min(values):
            axes.set_yscale("log")
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.set_xlabel("step", fontsize=8)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    for axes in list(panels):
        axes.set_axis_off()
    _save_figure(path, figure, origin)
