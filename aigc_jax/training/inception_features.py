"""Features of Inception-v3, by which the Fréchet Inception Distance and its kin are
defined; its weights are a file that the user has.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from aigc_jax.core.method import Array, PyTree
from aigc_jax.metrics.inputs import in_batches
from aigc_jax.models.inception import EPSILON, LOGITS, SIZE, InceptionV3
from aigc_jax.utils import tensor_files
from aigc_jax.utils.disk import file_sha256
from aigc_jax.utils.errors import UserError, require
from aigc_jax.utils.files import expand_user, find_obstacle

BATCH = 50  # pictures at once
WHERE = (
    "the weights are pt_inception-2015-12-05-6726825d.pth, whose SHA-256 begins with "
    "6726825d, of the release fid_weights of "
    "github.com/mseitzer/pytorch-fid, or the same tensors as .safetensors"
)


class Inception(NamedTuple):
    """pictures [n, H, W, C] in [-1, 1] -> (features [n, 2048], probabilities of the
    classes [n, 1008]).
    """

    name: str
    sha256: str  # of the file
    look: Callable

    def __call__(self, pictures):
        """Return features and probabilities of images, as the class says."""
        return self.look(pictures)


def shapes() -> dict[str, tuple[int, ...]]:
    """{path: shape} of the network's parameters."""
    variables = jax.eval_shape(
        lambda: InceptionV3().init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3), jnp.float32))
    )
    return {
        path: x.shape
        for path, x in flax.traverse_util.flatten_dict(variables["params"], sep="/").items()
    }


def params(theirs: dict[str, np.ndarray], path: Path, dtype: Any = np.float32) -> dict:
    """The parameters of `InceptionV3` from a state dict of PyTorch's: NAME.conv.weight
    [O, I, H, W] and NAME.bn.* [O] of each layer, fc.weight [O, I] and fc.bias. Batch
    normalization, (y - mean) / sqrt(var + 1e-3) * weight + bias, becomes y * scale +
    shift. Raises a UserError where a tensor is missing, of another shape, or has values
    that no network has.
    """

    def get(name, shape):
        require(name in theirs, f"{path} has no tensor {name!r}: it is no Inception-v3; {WHERE}")
        value = theirs[name]
        require(
            value.shape == shape,
            f"{path}: {name} is {value.shape}, and the Inception-v3 of {LOGITS:,} logits "
            f"has {shape}; {WHERE}",
        )
        return value.astype(np.float64)

    out: dict[str, Any] = {}
    for kernel, (*size, i, o) in (
        (path, shape) for path, shape in shapes().items() if path.endswith("/kernel")
    ):
        layer = kernel.removesuffix("/kernel")
        name = layer.replace("/", ".")
        if layer == "fc":
            out |= {kernel: get("fc.weight", (o, i)).T, "fc/bias": get("fc.bias", (o,))}
        else:
            weight, variance = get(f"{name}.bn.weight", (o,)), get(f"{name}.bn.running_var", (o,))
            require(
                variance.min() >= 0,
                f"{path} is damaged: {name}.bn.running_var is a variance below 0; {WHERE}",
            )
            scale = weight / np.sqrt(variance + EPSILON)
            shift = get(f"{name}.bn.bias", (o,)) - get(f"{name}.bn.running_mean", (o,)) * scale
            out |= {
                kernel: get(f"{name}.conv.weight", (o, i, *size)).transpose(2, 3, 1, 0),
                f"{layer}/scale": scale,
                f"{layer}/shift": shift,
            }
    for name, value in out.items():
        require(np.isfinite(value).all(), f"{path} is damaged: {name} is not finite; {WHERE}")
    return flax.traverse_util.unflatten_dict(
        {name: x.astype(dtype) for name, x in out.items()}, sep="/"
    )


def enlarged(x: Array) -> Array:  # [B, H, W, C] -> [B, 299, 299, 3]
    """Bilinear, between pixels' centres, without a filter where it shrinks, as
    pytorch-fid does (PyTorch's `interpolate` with align_corners=False); grey as three
    equal colours.
    """
    x = jnp.broadcast_to(x, (*x.shape[:-1], 3)) if x.shape[-1] == 1 else x
    return jax.image.resize(x, (len(x), SIZE, SIZE, 3), "bilinear", antialias=False)


@jax.jit
def see(weights: PyTree, x: Array) -> tuple[Array, Array]:  # [B, H, W, C] -> [B, 2048], [B, 1008]
    """Features and probabilities of the classes."""
    out: Any = InceptionV3().apply({"params": weights}, enlarged(x))
    features, logits = out
    return features, jax.nn.softmax(logits)


def looked(look: Callable, pictures: np.ndarray) -> tuple[np.ndarray, ...]:
    """look(pictures) in batches."""
    require(
        pictures.ndim == 4 and pictures.shape[-1] in (1, 3),
        f"Inception sees pictures in one or three colours, not {pictures.shape[1:]}",
    )
    return in_batches(look, pictures, BATCH)


def weights_of(path: Path, sha256: str) -> dict:
    """The parameters in a file, which must be whole where its name tells how its
    SHA-256 begins, as names of PyTorch's weights do.
    """
    told = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    require(
        told is None or sha256.startswith(told[1]),
        f"{path} is damaged: its SHA-256 begins with {sha256[:8]}, and not as its name "
        f"says; {WHERE}",
    )
    try:
        theirs = tensor_files.read(path)
    except UserError as e:
        raise UserError(f"{e}; {WHERE}") from None
    return params(theirs, path)


def extractor(path: str) -> Inception:
    """Inception-v3 with the weights of a file. Raises a UserError, which tells where
    there are some, when it is missing, damaged or another's.
    """
    file = expand_user(path)
    obstacle = find_obstacle(file)
    require(not obstacle, f"{file}: {obstacle}; {WHERE}")
    sha256 = file_sha256(file)
    weights = jax.device_put(weights_of(file, sha256))  # once, not with every batch
    return Inception("inception", sha256, lambda pictures: looked(partial(see, weights), pictures))
