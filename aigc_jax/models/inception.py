"""Inception-v3 (Szegedy et al. 2016, table 1 and figures 5 to 7), the variant of the
Fréchet Inception Distance (Heusel et al. 2017).

This is the TensorFlow network of 2015-12-05 with 1,008 logits, after its port in
pytorch-fid 0.3.0. Unlike torchvision's network, its average pools exclude the padding
and its last block uses max pooling. The module is for inference only: batch
normalization is folded into a scale and a shift.

A block is a tuple of branches. A branch is a sequence of layers (name, features,
kernel, stride, padding) and names in POOLS; a tuple of layers within a branch stands
for parallel layers on the same input, whose outputs are concatenated.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from aigc_jax.core.method import Array

EPSILON = 1e-3  # of the folded batch normalizations
SIZE, FEATURES, LOGITS = 299, 2048, 1008
HALF = (2, "VALID")

STEM = (
    ("Conv2d_1a_3x3", 32, 3, *HALF),
    ("Conv2d_2a_3x3", 32, 3, 1, "VALID"),
    ("Conv2d_2b_3x3", 64, 3),
    "reduce",
    ("Conv2d_3b_1x1", 80, 1),
    ("Conv2d_4a_3x3", 192, 3, 1, "VALID"),
    "reduce",
)


def block_a(pool_features: int) -> tuple:  # branches of a 35 x 35 block
    """Return the branches of a 35x35 block (figure 5); `pool_features` is the number of
    features of its pooling branch.
    """
    return (
        (("branch1x1", 64, 1),),
        (("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
        (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)),
        ("avg", ("branch_pool", pool_features, 1)),
    )


BLOCK_B = (
    (("branch3x3", 384, 3, *HALF),),
    (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, *HALF)),
    ("reduce",),
)


def block_c(width: int) -> tuple:  # branches of a 17 x 17 block
    """Return the branches of a 17x17 block, with 7x7 kernels factorized into 1x7 and
    7x1 (figure 6); `width` is the number of features within its branches.
    """
    row, column = (1, 7), (7, 1)
    double = (
        ("branch7x7dbl_1", width, 1),
        ("branch7x7dbl_2", width, column),
        ("branch7x7dbl_3", width, row),
        ("branch7x7dbl_4", width, column),
        ("branch7x7dbl_5", 192, row),
    )
    return (
        (("branch1x1", 192, 1),),
        (("branch7x7_1", width, 1), ("branch7x7_2", width, row), ("branch7x7_3", 192, column)),
        double,
        ("avg", ("branch_pool", 192, 1)),
    )


BLOCK_D = (
    (("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, *HALF)),
    (
        ("branch7x7x3_1", 192, 1),
        ("branch7x7x3_2", 192, (1, 7)),
        ("branch7x7x3_3", 192, (7, 1)),
        ("branch7x7x3_4", 192, 3, *HALF),
    ),
    ("reduce",),
)


def block_e(pool: str) -> tuple:  # branches of an 8 x 8 block
    """Return the branches of an 8x8 block (figure 7); `pool` is a name in POOLS."""
    sides = lambda name: ((f"{name}a", 384, (1, 3)), (f"{name}b", 384, (3, 1)))
    return (
        (("branch1x1", 320, 1),),
        (("branch3x3_1", 384, 1), sides("branch3x3_2")),
        (("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3), sides("branch3x3dbl_3")),
        (pool, ("branch_pool", 192, 1)),
    )


BLOCKS = {
    "Mixed_5b": block_a(32),
    "Mixed_5c": block_a(64),
    "Mixed_5d": block_a(64),
    "Mixed_6a": BLOCK_B,
    "Mixed_6b": block_c(128),
    "Mixed_6c": block_c(160),
    "Mixed_6d": block_c(160),
    "Mixed_6e": block_c(192),
    "Mixed_7a": BLOCK_D,
    "Mixed_7b": block_e("avg"),
    "Mixed_7c": block_e("max"),
}

POOLS = {
    "avg": lambda x: nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False).astype(
        x.dtype
    ),
    "max": lambda x: nn.max_pool(x, (3, 3), (1, 1), "SAME"),
    "reduce": lambda x: nn.max_pool(x, (3, 3), (2, 2)),
}


class Layer(nn.Module):
    """Convolution with folded batch normalization: relu(scale (x * kernel) + shift)."""

    features: int
    kernel: int | tuple[int, int]
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: Array) -> Array:  # [B, H, W, C] -> [B, h, w, features]
        """Return the activations, computed in full float32 precision."""
        size = (self.kernel,) * 2 if isinstance(self.kernel, int) else self.kernel
        kernel = self.param(
            "kernel",
            nn.initializers.lecun_normal(),
            (*size, x.shape[-1], self.features),
            jnp.float32,
        )
        scale = self.param("scale", nn.initializers.ones, (self.features,), jnp.float32)
        shift = self.param("shift", nn.initializers.zeros, (self.features,), jnp.float32)
        # Full float32 precision on GPUs too: metrics are distances between features.
        y = lax.conv_general_dilated(
            x,
            kernel,
            (self.stride,) * 2,
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision="highest",
        )
        return nn.relu(y * scale + shift)


def apply_branch(x: Array, branch: Sequence) -> Array:  # [B, H, W, C] -> [B, h, w, D]
    """Apply the layers of a branch one after another, as submodules of the module whose
    __call__ is running.

    Args:
      x: images or activations [B, H, W, C].
      branch: the layers, as described in the module's docstring.
    """
    for part in branch:
        if isinstance(part, str):
            x = POOLS[part](x)
        elif isinstance(part[0], str):
            name, *fields = part
            x = Layer(*fields, name=name)(x)
        else:
            x = jnp.concatenate([apply_branch(x, [one]) for one in part], axis=-1)
    return x


class Block(nn.Module):
    """Parallel branches on the same input."""

    branches: tuple

    @nn.compact
    def __call__(self, x: Array) -> Array:  # [B, H, W, C] -> [B, h, w, D]
        """Return the outputs of all branches, concatenated along the channels."""
        return jnp.concatenate([apply_branch(x, branch) for branch in self.branches], axis=-1)


class InceptionV3(nn.Module):
    """The network from images in [-1, 1] to features, the means of the last block over
    its 8x8 positions, and to the logits of 1,008 classes.
    """

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, ...]:  # [B, 299, 299, 3] -> [B, 2048], [B, 1008]
        """Return the features and the class logits of images."""
        x = apply_branch(x, STEM)
        for name, branches in BLOCKS.items():
            x = Block(branches, name=name)(x)
        features = x.mean((1, 2))
        return features, nn.Dense(LOGITS, precision="highest", name="fc")(features)
