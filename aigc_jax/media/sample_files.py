"""Samples as files that people open: pictures as .png, text as .txt."""

from pathlib import Path

import numpy as np

from aigc_jax.media.images import grid, is_drawable, save_png
from aigc_jax.media.plots import save_scatter
from aigc_jax.utils.documents import write_atomically


def save(stem: Path, samples: np.ndarray, dataset, origin: dict[str, str], columns=None) -> Path:
    """Write samples [N, ...] for this data set beside `stem`; return the file."""
    if dataset.tokenizer is None:
        path = stem.with_suffix(".png")
        save_samples(path, samples, dataset.spec, origin, columns)
        return path
    path = stem.with_suffix(".txt")
    save_texts(path, [dataset.tokenizer.text(tokens) for tokens in samples], origin)
    return path


def save_texts(path: Path, texts: list[str], origin: dict[str, str]):
    """Texts one after another, each below its number, all below their origin."""
    head = ", ".join(f"{key} {value}" for key, value in origin.items())
    write_atomically(
        path,
        "\n".join([f"# {head}", *(f"\n# {i}\n{text}" for i, text in enumerate(texts, 1))]) + "\n",
    )


def save_samples(path, samples: np.ndarray, spec, origin: dict[str, str], columns=None):
    """Samples that are drawable: images in a grid, several [N, K, H, W, C] of one
    example above one another, and channels that are neither grey nor RGB as grey images
    likewise; points in the plane over the modes of the data, several [N, K, D] of one
    example joined by lines.
    """
    if not is_drawable(samples.shape[1:], spec):
        raise ValueError(f"samples {list(samples.shape)} are no {spec.kind} {list(spec.shape)}")
    if spec.kind == "image":
        height, width, channels = spec.shape
        if channels not in (1, 3):
            samples, channels = (
                np.moveaxis(samples.reshape(-1, *spec.shape), -1, 1).reshape(
                    len(samples), -1, height, width, 1
                ),
                1,
            )
        save_png(path, grid(samples.reshape(len(samples), -1, width, channels), columns), origin)
    else:
        save_scatter(path, samples.reshape(len(samples), -1, samples.shape[-1]), spec, origin)
