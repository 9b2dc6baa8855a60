"""Features of Inception-v3, which define the Fréchet Inception Distance and related
metrics; the weights are a file of the user's.
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
from aigc_jax.metrics.inputs import apply_in_batches
from aigc_jax.models.inception import EPSILON, LOGITS, SIZE, InceptionV3
from aigc_jax.utils import tensor_files
from aigc_jax.utils.disk import file_sha256
from aigc_jax.utils.errors import UserError, require
from aigc_jax.utils.files import expand_user, why_not_regular

BATCH = 50  # images per call
WHERE = (
    "the weights are pt_inception-2015-12-05-6726825d.pth, whose SHA-256 begins with "
    "6726825d, of the release fid_weights of "
    "github.com/mseitzer/pytorch-fid, or the same tensors as .safetensors"
)


class Inception(NamedTuple):
    """Inception-v3: images [n, H, W, C] in [-1, 1] -> (features [n, 2048], class
    probabilities [n, 1008]).
    """

    name: str
    sha256: str  # of the file
    extract: Callable

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return features and class probabilities of images."""
        return self.extract(images)


def parameter_shapes() -> dict[str, tuple[int, ...]]:  # {path joined by "/": shape}
    """Return {path: shape} of the network's parameters."""
    variables = jax.eval_shape(
        lambda: InceptionV3().init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3), jnp.float32))
    )
    return {
        path: x.shape
        for path, x in flax.traverse_util.flatten_dict(variables["params"], sep="/").items()
    }


def convert_state_dict(tensors: dict[str, np.ndarray], path: Path, dtype: Any = np.float32) -> dict:
    """Return the parameters of `InceptionV3` from a PyTorch state dict. Batch
    normalization, (y - mean) / sqrt(var + 1e-3) * weight + bias, becomes y * scale +
    shift.

    Args:
      tensors: NAME.conv.weight [O, I, H, W] and NAME.bn.* [O] of each
        layer, fc.weight [O, I] and fc.bias.
      path: its file, which error messages name.
      dtype: dtype of the parameters.

    Raises:
      UserError: a tensor is missing, has another shape, a negative variance or values
        that are not finite.
    """

    def get(name, shape):
        require(
            name in tensors, f"{path} is not an Inception-v3: tensor {name!r} is missing; {WHERE}"
        )
        value = tensors[name]
        require(
            value.shape == shape,
            f"{path}: {name} is {value.shape}, but the Inception-v3 of {LOGITS:,} logits "
            f"has {shape}; {WHERE}",
        )
        return value.astype(np.float64)

    out: dict[str, Any] = {}
    for kernel, (*size, i, o) in (
        (path, shape) for path, shape in parameter_shapes().items() if path.endswith("/kernel")
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


def resize_images(images: Array) -> Array:  # [B, H, W, C] -> [B, 299, 299, 3]
    """Resize images bilinearly between pixel centres, without a filter where they
    shrink, as pytorch-fid does (PyTorch's `interpolate` with align_corners=False).
    Greyscale is repeated to three channels.
    """
    images = jnp.broadcast_to(images, (*images.shape[:-1], 3)) if images.shape[-1] == 1 else images
    return jax.image.resize(images, (len(images), SIZE, SIZE, 3), "bilinear", antialias=False)


@jax.jit
def extract_features(
    params: PyTree, images: Array
) -> tuple[Array, Array]:  # [B, H, W, C] -> features [B, 2048], probabilities [B, 1008]
    """Return features and class probabilities of images in [-1, 1]."""
    out: Any = InceptionV3().apply({"params": params}, resize_images(images))
    features, logits = out
    return features, jax.nn.softmax(logits)


def extract_in_batches(
    extract: Callable[[Array], tuple[Array, ...]], images: np.ndarray
) -> tuple[np.ndarray, ...]:  # [n, H, W, C] -> arrays [n, ...], as `extract` returns them
    """Apply an extractor to images in batches."""
    require(
        images.ndim == 4 and images.shape[-1] in (1, 3),
        f"Inception needs images of 1 or 3 channels, not of shape {images.shape[1:]}",
    )
    return apply_in_batches(extract, images, BATCH)


def read_params(path: Path, file_hash: str) -> dict[str, Any]:  # nested parameters of InceptionV3
    """Return the parameters in a file. Where the file name holds the first digits of
    the SHA-256, as those of PyTorch's weights do, the digest must match.
    """
    digits = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    require(
        digits is None or file_hash.startswith(digits[1]),
        f"{path} is damaged: its SHA-256 begins with {file_hash[:8]}, not with the digits of "
        f"its name; {WHERE}",
    )
    try:
        tensors = tensor_files.read_tensors(path)
    except UserError as e:
        raise UserError(f"{e}; {WHERE}") from None
    return convert_state_dict(tensors, path)


def load_inception(weights_path: str) -> Inception:
    """Return Inception-v3 with the weights of a file. Raise a UserError, which names a
    source of the weights, where the file is missing, damaged or of another network.
    """
    file = expand_user(weights_path)
    obstacle = why_not_regular(file)
    require(not obstacle, f"{file}: {obstacle}; {WHERE}")
    sha256 = file_sha256(file)
    params = jax.device_put(read_params(file, sha256))  # once, not with every batch
    return Inception(
        "inception",
        sha256,
        lambda images: extract_in_batches(partial(extract_features, params), images),
    )
