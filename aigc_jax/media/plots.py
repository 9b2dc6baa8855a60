"""Scatter plots of samples, and plots of separability.

Matplotlib is imported when a figure is created.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aigc_jax.media.glyphs import escape_figure
from aigc_jax.media.images import make_image_grid
from aigc_jax.media.sheets import PLAIN, Annotations
from aigc_jax.utils.documents import write_atomically
from aigc_jax.utils.quantities import format_count

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def make_figure(
    width: float, height: float, layout: Any = "constrained"
) -> "Figure":  # width and height in inches
    """Return an empty figure of width x height inches at 100 dots per inch."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout, dpi=100)


def save_figure(path: Path, figure: "Figure", origin: dict[str, str]) -> None:
    """Write a figure as a PNG with its origin in text chunks."""
    escape_figure(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={k: str(v) for k, v in origin.items()})
    write_atomically(path, buffer.getvalue())


def save_scatter(
    path: Path,
    samples: np.ndarray,
    spec: Any,
    origin: dict[str, str],
    columns: int | None = None,
    annotations: Annotations = PLAIN,
) -> None:  # [N, K, D]: the first two coordinates
    """Write a scatter plot of the first two coordinates of samples: each series
    connected by a line, and the modes of the data if the spec has them.

    Args:
      path: the PNG file.
      samples: N series [N, K, D] of K points, K of 1 or 2. Of D = 1, the coordinate is
        drawn on both axes.
      spec: the `data.dataset.Spec` of the data, whose `centres` are drawn as modes.
      origin: {name: text}, such as `provenance_marks.describe_origin`.
      columns: consecutive samples of one interpolation.
      annotations: the title; labels with end points mark those of each interpolation,
        whose samples a line connects.
    """
    figure = make_figure(5, 5)
    axes = figure.subplots()
    x, y = samples[..., 0], samples[..., min(1, samples.shape[-1] - 1)]  # [N, K]
    axes.plot(x.T, y.T, color="0.7", linewidth=0.5)
    for k, label in enumerate(_name_points(len(x), x.shape[1], annotations)):
        axes.scatter(x[:, k], y[:, k], s=9, alpha=0.5, linewidths=0, label=label)
    if columns and annotations.labels is not None and annotations.labels.has_ends:
        _draw_interpolations(axes, x[:, 0], y[:, 0], columns)
    if spec.centres is not None:
        axes.plot(
            spec.centres[:, 0],
            spec.centres[:, 1],
            "+",
            color="black",
            markersize=9,
            label="modes of the data",
        )
        reach = 1.4 * np.abs(spec.centres).max()
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
    axes.set_aspect("equal")
    axes.set_title(annotations.title, fontsize=9)
    axes.legend(loc="upper right", fontsize=8)
    save_figure(path, figure, origin)


def _name_points(count: int, num_points: int, annotations: Annotations) -> list[str]:
    """Return the names of the points of `count` series in a legend."""
    labels = annotations.labels
    if labels is not None and labels.images and len(labels.images) == num_points:
        return [f"{name} ({count:,})" for name in labels.images]
    if num_points == 1:
        return [format_count(count, "sample")]
    return [f"{name} point of each of {count:,} pairs" for name in ("first", "second")]


def _draw_interpolations(axes: Any, x: np.ndarray, y: np.ndarray, columns: int) -> None:
    """Connect every `columns` consecutive points [N], and mark the first and last."""
    for start in range(0, len(x), columns):
        part = slice(start, start + columns)
        axes.plot(x[part], y[part], color="0.6", linewidth=0.8, zorder=1)
    for first, marker, colour, name in (
        (0, "o", "tab:green", "draw 1"),
        (columns - 1, "s", "tab:red", "draw 2"),
    ):
        ends = slice(first, None, columns)
        axes.scatter(x[ends], y[ends], s=24, marker=marker, color=colour, label=name)


def save_separability(
    path: Path,
    image_sets: np.ndarray,
    scores: np.ndarray,
    accuracy: float,
    origin: dict[str, str],
    title: str = "",
    *,
    num_shown: int = 16,
) -> None:  # images [2, K, H, W, C] and scores [2, K] of examples and samples
    """Write a figure of a linear classifier's separation of examples and samples: its
    scores, its accuracy, and the images with the most extreme scores of either set.

    Args:
      path: the PNG file.
      image_sets: images [2, K, H, W, C] of examples and samples, each in ascending
        order of the scores.
      scores: scores [2, K] of examples and samples, positive if classified as example.
      accuracy: the accuracy of the classifier.
      origin: metadata of the file.
      title: first line of the figure.
      num_shown: number of images per strip.
    """
    figure = make_figure(9, 5.8)
    axes = figure.subplots(5, 1, height_ratios=(3.4, 1, 1, 1, 1))
    figure.suptitle(title, fontsize=9, parse_math=False)
    _draw_scores(axes[0], scores, accuracy)
    reals, fakes = image_sets
    shown = (fakes, fakes[::-1], reals, reals[::-1])
    for ax, name, images in zip(axes[1:], name_strips(scores), shown, strict=True):
        pixels = make_image_grid(images[:num_shown], num_shown)
        ax.imshow(
            pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=255
        )
        ax.set_title(name, fontsize=8)
        ax.set_axis_off()
    save_figure(path, figure, origin)


def _draw_scores(axes: Any, scores: np.ndarray, accuracy: float) -> None:
    """Draw histograms of the scores [2, K] of `save_separability`."""
    low, high = np.quantile(scores, (0.001, 0.999))
    for name, values, colour in zip(
        ("examples", "samples"), scores, ("tab:blue", "tab:orange"), strict=True
    ):
        axes.hist(
            values,
            np.linspace(low, high, 81),
            alpha=0.6,
            label=f"{len(values):,} {name}",
            color=colour,
        )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("score: below 0 classified as sample, above 0 as example", fontsize=8)
    axes.set_ylabel("images", fontsize=8)
    axes.tick_params(labelsize=8)
    about = "50%: samples like examples"
    axes.set_title(f"linear classifier, accuracy {accuracy:.1%} ({about})", fontsize=9)
    axes.legend(fontsize=8)


def name_strips(scores: np.ndarray) -> tuple[str, str, str, str]:  # of [2, K]
    """Return the names of the strips of `save_separability`, with the numbers of
    images that are classified wrongly, which may be fewer than a strip has.
    """
    num = f"{scores.shape[1]:,}"
    fakes, reals = (scores[1] > 0).sum(), (scores[0] < 0).sum()
    return (
        "samples least like examples",
        f"samples most like examples ({fakes:,} of {num} are classified as examples)",
        f"examples most like samples ({reals:,} of {num} are classified as samples)",
        "examples least like samples",
    )
