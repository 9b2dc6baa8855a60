"""Figures of latents and of likelihoods."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aigc_jax.media.plots import make_figure, save_figure

MOST_CLASSES = 20  # in one column of a legend


def save_latents(
    path: Path,
    means: np.ndarray,
    deviations: np.ndarray,
    labels: np.ndarray | None,
    origin: dict[str, str],
    title: str = "",
    *,
    has_image: bool = False,
    class_names: Sequence[str] = (),
) -> None:  # [N, Z] each, labels [N], or [N - 1] with an image
    """Write a scatter plot of the latents of examples, coloured by class.

    Of two latents, the means; of more, the projection of the means to their first two
    principal components, whose shares of the variance name the axes; of one, the mean
    and the standard deviation.

    Args:
      path: the PNG file.
      means: means [N, Z] of the approximate posteriors.
      deviations: their standard deviations [N, Z].
      labels: classes of the examples; None: the data have none.
      origin: {name: text}, such as `provenance_marks.describe_origin`.
      title: title of the figure.
      has_image: whether the last is no example but an image, which a star marks.
      class_names: names of the classes; (): their numbers.
    """
    points, names = project_latents(means, deviations)
    figure = make_figure(6.6, 5)
    axes = figure.subplots()
    examples = points[: len(points) - has_image]
    if has_image:
        style: dict[str, Any] = dict(marker="*", color="black", zorder=3)
        axes.scatter(points[-1:, 0], points[-1:, 1], s=60, label="the image", **style)
    if labels is None:
        axes.scatter(examples[:, 0], examples[:, 1], s=7, linewidths=0, alpha=0.8)
        if has_image:
            axes.legend(fontsize=7)
    else:
        _draw_classes(axes, examples, labels, class_names)
    axes.set(xlabel=names[0], ylabel=names[1])
    axes.set_title(title, fontsize=9, parse_math=False)
    axes.grid(alpha=0.3)
    if means.shape[1] > 1:
        axes.set_aspect("equal", adjustable="datalim")
    save_figure(path, figure, origin)


def _draw_classes(axes: Any, points: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> None:
    """Draw points [N, 2] in the colour of their class, with a legend beside them."""
    classes = np.unique(labels)
    for kind in classes:
        own, colour = points[labels == kind], _class_colour(int(kind), int(classes[-1]) + 1)
        name = f"{names[kind] if names else kind} ({len(own):,})"
        axes.scatter(own[:, 0], own[:, 1], s=7, linewidths=0, alpha=0.8, color=colour, label=name)
    legend = axes.legend(
        title="class (examples)",
        fontsize=7,
        title_fontsize=7,
        markerscale=2,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        ncols=-(-len(classes) // MOST_CLASSES),
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _class_colour(number: int, count: int) -> Any:
    """Return the colour of a class: of tab10 or tab20, or a hue of its own."""
    import matplotlib

    if count > 20:
        return matplotlib.colormaps["hsv"](number / count)
    return matplotlib.colormaps["tab10" if count <= 10 else "tab20"](number)


def project_latents(
    means: np.ndarray, deviations: np.ndarray
) -> tuple[np.ndarray, tuple[str, str]]:  # [N, Z] -> points [N, 2], names of the axes
    """Return two coordinates of latents, and their names, as in `save_latents`. The
    principal components are those of scikit-learn, from a full decomposition.
    """
    means = np.asarray(means, np.float64)
    if means.shape[1] == 1:
        points = np.concatenate([means, np.asarray(deviations, np.float64)], 1)
        return points, ("z0, mean of q(z | x)", "z0, standard deviation of q(z | x)")
    if means.shape[1] == 2 or len(means) < 2:
        return means[:, :2], ("z0, mean of q(z | x)", "z1, mean of q(z | x)")
    from sklearn.decomposition import PCA

    pca = PCA(2, svd_solver="full").fit(means)
    first, second = (
        f"principal component {i} of {means.shape[1]} latents ({share:.0%} of the variance)"
        for i, share in enumerate(pca.explained_variance_ratio_, 1)
    )
    return pca.transform(means), (first, second)


def save_histograms(
    path: Path,
    value_sets: dict[str, np.ndarray],
    value_name: str,
    origin: dict[str, str],
    title: str = "",
) -> None:  # {name: [n]}
    """Write histograms of sets of numbers on common bins, as shares of each set; dashed
    lines are the means, which the legend gives with their standard errors.

    Args:
      path: the PNG file.
      value_sets: {name: values [n]}; values that are not finite are counted in the
        legend.
      value_name: name and unit of the numbers.
      origin: {name: text}, such as `provenance_marks.describe_origin`.
      title: title of the figure.
    """
    figure = make_figure(6, 4)
    axes: Any = figure.subplots()
    finite = {name: values[np.isfinite(values)] for name, values in value_sets.items()}
    every = np.concatenate([np.asarray(v, np.float64) for v in finite.values()])
    bins = np.histogram_bin_edges(every, bins=min(50, max(10, round(len(every) ** 0.5))))
    for (name, values), colour in zip(finite.items(), ("tab:blue", "tab:orange"), strict=False):
        label = _describe_values(name, value_sets[name], values)
        if len(values):
            axes.axvline(values.mean(), color=colour, linestyle="--", linewidth=1)
        weights = np.full(len(values), 1 / max(1, len(values)))
        axes.hist(values, bins, weights=weights, alpha=0.55, color=colour, label=label)
    axes.set(xlabel=value_name, ylabel="share of the set")
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=8)
    save_figure(path, figure, origin)


def _describe_values(name: str, values: np.ndarray, finite: np.ndarray) -> str:
    """Return the line of a legend: n, mean, standard error, and what is not finite."""
    out = f"{name}: n = {len(finite):,}"
    if len(finite):
        out += f", mean {finite.mean():.2f}"
    if len(finite) > 1:
        out += f" (s.e. {finite.std(ddof=1) / len(finite) ** 0.5:.2g})"
    absent = len(values) - len(finite)
    return out + f", {absent:,} not finite" * bool(absent)
