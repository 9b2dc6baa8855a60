"""Samples as files that people open: pictures as .png, text as .txt."""

from pathlib import Path

import numpy as np

from aigc_jax import pictures
from aigc_jax.stored import write_atomically


def save(stem: Path, samples: np.ndarray, dataset, origin: dict[str, str], columns=None) -> Path:
    """Write samples [N, ...] of a method for this data set beside `stem`; returns the file."""
    if dataset.tokenizer is None:
        path = stem.with_suffix(".png")
        pictures.save_samples(path, samples, dataset.spec, origin, columns)
        return path
    path = stem.with_suffix(".txt")
    save_texts(path, [dataset.tokenizer.text(tokens) for tokens in samples], origin)
    return path


def save_texts(path: Path, texts: list[str], origin: dict[str, str]):
    """Texts one after another, each below a line with its number, all below their origin."""
    head = ", ".join(f"{key} {value}" for key, value in origin.items())
    write_atomically(path, "\n".join([f"# {head}", *(f"\n# {i}\n{text}" for i, text in enumerate(texts, 1))]) + "\n")
