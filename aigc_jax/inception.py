"""Features of Inception-v3, by which the Fréchet Inception Distance and its kin are defined; its weights are a file that the user has."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from aigc_jax import torch_files
from aigc_jax.errors import UserError, require
from aigc_jax.models.inception import EPSILON, SIZE, InceptionV3
from aigc_jax.results import file_sha256

BATCH = 50  # pictures at once
WHERE = "the weights are pt_inception-2015-12-05-6726825d.pth of pytorch-fid's release fid_weights, or the same tensors as .safetensors"


class Inception(NamedTuple):
    """pictures [n, H, W, C] in [-1, 1] -> (features [n, 2048], probabilities [n, 1008])"""

    name: str
    sha256: str  # of the file
    look: Callable

    def __call__(self, pictures):
        return self.look(pictures)


def shapes() -> dict[str, tuple[int, ...]]:
    """{path: shape} of the network's parameters."""
    variables = jax.eval_shape(lambda: InceptionV3().init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3))))
    return {path: x.shape for path, x in flax.traverse_util.flatten_dict(variables["params"], sep="/").items()}


def params(theirs: dict[str, np.ndarray], path) -> dict:
    """The parameters of `InceptionV3` from a state dict of PyTorch's: NAME.conv.weight [O, I, H, W] and NAME.bn.* of each layer, fc.*."""
    expected, out = shapes(), {}

    def get(name):
        require(name in theirs, f"{path} has no tensor {name!r}: it is no Inception-v3; {WHERE}")
        return np.asarray(theirs[name], np.float64)

    for layer in {name.rsplit("/", 1)[0] for name in expected} - {"fc"}:
        name = layer.replace("/", ".")
        out[f"{layer}/kernel"] = get(f"{name}.conv.weight").transpose(2, 3, 1, 0)
        scale = get(f"{name}.bn.weight") / np.sqrt(get(f"{name}.bn.running_var") + EPSILON)
        out |= {f"{layer}/scale": scale, f"{layer}/shift": get(f"{name}.bn.bias") - get(f"{name}.bn.running_mean") * scale}
    out |= {"fc/kernel": get("fc.weight").T, "fc/bias": get("fc.bias")}
    for name, shape in expected.items():
        require(out[name].shape == shape, f"{path}: {name} is {out[name].shape}, and Inception-v3 with 1,008 logits has {shape}; {WHERE}")
    return flax.traverse_util.unflatten_dict({name: x.astype(np.float32) for name, x in out.items()}, sep="/")


def enlarged(x):  # [B, H, W, C] -> [B, 299, 299, 3]
    """Bilinear, between pixels' centres, without a filter where it shrinks; grey as three equal colours."""
    x = jnp.broadcast_to(x, (*x.shape[:-1], 3)) if x.shape[-1] == 1 else x
    return jax.image.resize(x, (len(x), SIZE, SIZE, 3), "bilinear", antialias=False)


def extractor(path) -> Inception:
    """Inception-v3 with the weights of a file."""
    path = Path(path).expanduser()
    require(path.is_file(), f"--inception={path}: no such file; {WHERE}")
    weights = params(torch_files.read(path), path)

    @jax.jit
    def see(weights, x):
        features, logits = InceptionV3().apply({"params": weights}, enlarged(x))
        return features, jax.nn.softmax(logits)

    def look(pictures):
        if pictures.ndim != 4 or pictures.shape[-1] not in (1, 3):
            raise UserError(f"Inception sees pictures in one or three colours, not {pictures.shape[1:]}")
        parts = []
        for first in range(0, len(pictures), BATCH):
            part = np.asarray(pictures[first : first + BATCH], np.float32)
            filled = np.concatenate([part, np.zeros((BATCH - len(part), *part.shape[1:]), np.float32)])
            parts.append([np.asarray(x)[: len(part)] for x in see(weights, filled)])
        return tuple(np.concatenate(x) for x in zip(*parts, strict=True))

    return Inception("Inception", file_sha256(path), look)
