"""Samples as files: images and points as .png, text as .txt."""

from pathlib import Path

import numpy as np

from aigc_jax.media.images import image_grid, is_drawable, save_png
from aigc_jax.media.plots import save_scatter
from aigc_jax.utils.documents import write_atomically


def save_drawn(
    stem: Path, samples: np.ndarray, dataset, origin: dict[str, str], columns: int | None = None
) -> Path:
    """Write samples [N, ...] of a data set to `stem` with a suffix; return the path."""
    if dataset.tokenizer is None:
        path = stem.with_suffix(".png")
        save_samples(path, samples, dataset.spec, origin, columns)
        return path
    path = stem.with_suffix(".txt")
    save_texts(path, [dataset.tokenizer.text(tokens) for tokens in samples], origin)
    return path


def save_texts(path: Path, texts: list[str], origin: dict[str, str]) -> None:
    """Write texts to one file, which begins with their origin; a number heads each."""
    head = ", ".join(f"{key} {value}" for key, value in origin.items())
    write_atomically(
        path,
        "\n".join([f"# {head}", *(f"\n# {i}\n{text}" for i, text in enumerate(texts, 1))]) + "\n",
    )


def save_samples(
    path: Path, samples: np.ndarray, spec, origin: dict[str, str], columns: int | None = None
) -> None:
    """Write drawable samples as a PNG: images as a grid, points as a scatter plot with
    the modes of the data.

    The K images [N, K, H, W, C] of one example form a column, as do channels that are
    neither grey nor RGB, each as a grey image. Lines connect the K points [N, K, D] of
    one example.

    Raises:
      ValueError: if the samples are not images or points of the spec.
    """
    if not is_drawable(samples.shape[1:], spec):
        raise ValueError(
            f"samples {list(samples.shape)} do not have the shape {list(spec.shape)} "
            f"of the {spec.kind} data"
        )
    if spec.kind == "image":
        height, width, channels = spec.shape
        if channels not in (1, 3):
            samples, channels = (
                np.moveaxis(samples.reshape(-1, *spec.shape), -1, 1).reshape(
                    len(samples), -1, height, width, 1
                ),
                1,
            )
        save_png(
            path, image_grid(samples.reshape(len(samples), -1, width, channels), columns), origin
        )
    else:
        save_scatter(path, samples.reshape(len(samples), -1, samples.shape[-1]), spec, origin)
