"""What `sample` draws of a run: arrays, and the sheet or figure of them.

A sheet is drawn by `save` alone, which may need more of the run: the classes of the
examples, or values of the training split.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aigc_jax.core.method import GridLabels
from aigc_jax.data.order import permute_fixed
from aigc_jax.inference import conditioning, generation
from aigc_jax.media import latent_plots, plots, sample_files
from aigc_jax.media.sheets import Annotations
from aigc_jax.metrics.two_sample_test import sign_accuracy

if TYPE_CHECKING:
    from aigc_jax.inference.run import Run

LATENTS = 2000  # most examples whose latents are drawn by default


class Request(NamedTuple):
    """What to draw; None is the default of the sampler or view."""

    what: str
    num: int | None = None
    seed: int = 0
    label: int | None = None
    split: str | None = None
    latents: Any = None  # as in `Run.draw`
    image: Any = None  # as in `Run.draw`, instead of examples


class Sheet(NamedTuple):
    """Samples, and the function that draws them."""

    samples: np.ndarray  # what a .npy stores
    save: Callable[[Path, dict[str, str]], None]  # (path of a .png, origin)


def draw_sheet(run: "Run", request: Request) -> Sheet:
    """Draw the samples of a request: of a sampler, or "neighbours" or "separability" of
    the prior.
    """
    if request.what in VIEWS:
        return VIEWS[request.what](run, request)
    figure = run.programs.method.samplers[request.what].figure
    return FIGURES.get(figure, draw_images)(run, request)


def fill_rows(run: "Run", request: Request) -> tuple[Request, str]:  # and a note, or ""
    """Return the request with its number of samples rounded up to full rows of the
    sampler's grid, and a note where this changes it.
    """
    num, columns = request.num, run.grid_columns(request.what)
    if num is None or columns is None or request.label is not None:
        return request, ""
    full = -(-num // columns) * columns
    if full == num or not 0 < num <= generation.MOST:  # `Run.draw` refuses the latter
        return request, ""
    note = f"{request.what} is drawn in rows of {columns}: {full:,} samples"
    return request._replace(num=full), note


def make_title(run: "Run", request: Request, split: str = "") -> str:
    """Return the first line of a sheet: sampler, step, seed, class, set latents and
    split.
    """
    parts = [request.what, f"step {run.step:,}", f"seed {request.seed}"]
    if request.label is not None:
        name = run.spec.label_classes()[request.label]
        parts.append(f"class {request.label}" + f" ({name})" * (name != str(request.label)))
    if request.latents:
        parts.append(f"latents {conditioning.format_latents(request.latents)}")
    parts += [f"{split} examples"] * bool(split)
    return ", ".join(parts)


def draw_samples(run: "Run", request: Request, num: int | None, split: str) -> np.ndarray:
    """Draw samples of the request's sampler, by its latents or its image if it has
    one.
    """
    return run.draw(
        num,
        request.what,
        request.seed,
        split,
        request.label,
        latents=request.latents,
        image=request.image,
    )


def draw_images(run: "Run", request: Request) -> Sheet:
    """Draw the images or points of a sampler, with names of the grid's rows and columns
    unless all are of one class.
    """
    sampler = run.programs.method.samplers[request.what]
    split = request.split or "test"
    samples = draw_samples(run, request, request.num, split)
    one_class = request.label is not None
    columns = None if one_class else run.grid_columns(request.what)
    labels = GridLabels(images=sampler.labels.images) if one_class else sampler.labels
    is_of_split = sampler.conditioned and request.image is None
    title = make_title(run, request, split if is_of_split else "")

    def save(path: Path, origin: dict[str, str]) -> None:
        annotations = Annotations(title, labels)
        sample_files.save_samples_png(path, samples, run.spec, origin, columns, annotations)

    return Sheet(samples, save)


def draw_neighbours(run: "Run", request: Request) -> Sheet:
    """Draw samples above their nearest examples, with their distances below."""
    split = request.split or "train"
    pairs = run.pair_with_neighbours(request.num, request.seed, request.label, split)
    difference = np.subtract(pairs[:, 0], pairs[:, 1], dtype=np.float64)
    distances = np.sqrt((difference.reshape(len(pairs), -1) ** 2).sum(1))
    unit = "of pixels in [-1, 1]" if run.spec.kind == "image" else "of points"
    title = (
        f"{make_title(run, request)}\nwith the nearest of the {split} split\n"
        f"Euclidean distance {unit}: {distances.min():.2f} to {distances.max():.2f}"
    )

    def save(path: Path, origin: dict[str, str]) -> None:
        labels = GridLabels(images=("sample", "nearest"))
        annotations = Annotations(title, labels, [f"{d:.2f}" for d in distances])
        sample_files.save_samples_png(path, pairs, run.spec, origin, None, annotations)

    return Sheet(pairs, save)


def draw_separability(run: "Run", request: Request) -> Sheet:
    """Draw examples and samples in the order of a classifier's scores."""
    split = request.split or "test"
    samples, scores = run.sort_by_separability(request.num, request.seed, request.label, split)
    title = make_title(run, request, split)

    def save(path: Path, origin: dict[str, str]) -> None:
        plots.save_separability(path, samples, scores, sign_accuracy(scores), origin, title)

    return Sheet(samples, save)


def draw_latents(run: "Run", request: Request) -> Sheet:
    """Draw the latents of examples (draw, mean, log variance) by class, or those of an
    image among them.
    """
    split, has_image = request.split or "test", request.image is not None
    start, count = run.full_programs.dataset.splits[split]
    num = min(LATENTS, count) if request.num is None or has_image else request.num
    latents = draw_samples(run, request, request.num if has_image else num, split)
    title = make_title(run, request, split)

    def save(path: Path, origin: dict[str, str]) -> None:
        dataset, shown = run.full_programs.dataset, latents
        batch = dataset.take(dataset.arrays, start + permute_fixed(np.arange(num), count))
        labels = np.asarray(batch["label"]) if "label" in batch else None
        if has_image:
            examples = run.draw(num, request.what, request.seed, split)
            shown = np.concatenate([examples, latents])
        spread = np.exp(0.5 * shown[:, 2])
        latent_plots.save_latents(
            path,
            shown[:, 1],
            spread,
            labels,
            origin,
            title,
            has_image=has_image,
            class_names=run.spec.class_names,
        )

    return Sheet(latents, save)


def draw_log_likelihood(run: "Run", request: Request) -> Sheet:
    """Draw the log likelihoods of a split, or of an image, with those of the training
    split.
    """
    split = request.split or "test"
    values = draw_samples(run, request, request.num, split)
    title = make_title(run, request)

    def save(path: Path, origin: dict[str, str]) -> None:
        sets: dict[str, Any] = {split if request.image is None else "image": values}
        if split != "train" or request.image is not None:
            num = len(values) if request.image is None else None
            num = num and min(num, run.full_programs.dataset.splits["train"][1])
            sets["train"] = run.draw(num, request.what, request.seed, "train")
        name = f"log p(x), nats ({run.config.nll_samples:,} importance samples); higher is better"
        latent_plots.save_histograms(path, sets, name, origin, title)

    return Sheet(values, save)


Draw = Callable[["Run", Request], Sheet]
# Views of the samples of the prior, by the name that `sample` takes.
VIEWS: dict[str, Draw] = dict(neighbours=draw_neighbours, separability=draw_separability)
# Sampler.figure -> how its samples are drawn.
FIGURES: dict[str, Draw] = dict(latents=draw_latents, log_likelihood=draw_log_likelihood)
