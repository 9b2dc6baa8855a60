"""Samples as files: images and points as .png, text as .txt."""

from pathlib import Path
from typing import Any

import numpy as np

from aigc_jax.media.images import is_drawable, save_png
from aigc_jax.media.plots import save_scatter
from aigc_jax.media.sheets import PLAIN, Annotations, make_sheet
from aigc_jax.utils.documents import write_atomically


def save_images_or_texts(
    stem: Path,
    samples: np.ndarray,
    dataset: Any,
    origin: dict[str, str],
    columns: int | None = None,
    annotations: Annotations = PLAIN,
) -> Path:  # STEM.png, of texts STEM.txt
    """Write samples of a data set to a file; return its path.

    Args:
      stem: path of the file without its suffix: .txt for tokens, else .png.
      samples: [N, ...], images or points as in `save_samples_png`, or tokens [N, T] of
        a text.
      dataset: the `data.dataset.Dataset`, with the spec and, for texts, the tokenizer.
      origin: {name: text}, such as `provenance_marks.describe_origin`.
      columns: as in `save_samples_png`.
      annotations: as in `save_samples_png`.
    """
    if dataset.tokenizer is None:
        path = stem.with_suffix(".png")
        save_samples_png(path, samples, dataset.spec, origin, columns, annotations)
        return path
    path = stem.with_suffix(".txt")
    save_texts(path, [dataset.tokenizer.decode_until_end(tokens) for tokens in samples], origin)
    return path


def save_texts(path: Path, texts: list[str], origin: dict[str, str]) -> None:
    """Write texts to one file, which begins with their origin; a number heads each.

    Args:
      path: the file.
      texts: texts, numbered from 1.
      origin: {name: text}, such as `provenance_marks.describe_origin`.
    """
    head = ", ".join(f"{key} {value}" for key, value in origin.items())
    write_atomically(
        path,
        "\n".join([f"# {head}", *(f"\n# {i}\n{text}" for i, text in enumerate(texts, 1))]) + "\n",
    )


def save_samples_png(
    path: Path,
    samples: np.ndarray,
    spec: Any,
    origin: dict[str, str],
    columns: int | None = None,
    annotations: Annotations = PLAIN,
) -> None:  # images [N, (K,) H, W, C] in [-1, 1], points [N, (K,) D]
    """Write drawable samples as a PNG: images as a grid, points as a scatter plot with
    the modes of the data.

    The K images [N, K, H, W, C] of one example form a column, as do channels that are
    neither grey nor RGB, each as a grey image. Lines connect the K points [N, K, D] of
    one example.

    Args:
      path: the PNG file.
      samples: [N, ...] or [N, K, ...], images in [-1, 1] or points.
      spec: the `data.dataset.Spec` of the data.
      origin: {name: text}, such as `provenance_marks.describe_origin`.
      columns: images per row of the grid; None: `images.choose_grid_shape`. Of points:
        those of one interpolation, if the labels have end points.
      annotations: title, labels and captions of the sheet; captions are of images.

    Raises:
      ValueError: the samples are not images or points of the spec.
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
        cells = samples.reshape(len(samples), -1, height, width, channels)
        save_png(path, make_sheet(cells, columns, annotations), origin)
    else:
        points = samples.reshape(len(samples), -1, samples.shape[-1])
        save_scatter(path, points, spec, origin, columns, annotations)
