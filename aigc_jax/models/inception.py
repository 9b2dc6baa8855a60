"""Inception-v3 (Szegedy et al. 2016, table 1 and figures 5 to 7) as the Fréchet
Inception Distance has it (Heusel et al. 2017): the TensorFlow network of 2015-12-05
with 1,008 logits, after its port in pytorch-fid 0.3.0. It differs from torchvision's in
that average pools leave out the padding and that the last block pools by the maximum.
For inference: batch normalization is a scale and a shift.

A block is a table of branches, a branch a row of layers (name, features, kernel,
stride, padding) and names of POOLS. A tuple of layers in a row is several layers on the
same input, side by side.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

EPSILON = 1e-3  # of the batch normalizations that were folded
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


def a(pool):
    """35x35 (figure 5)."""
    return (
        (("branch1x1", 64, 1),),
        (("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
        (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)),
        ("avg", ("branch_pool", pool, 1)),
    )


B = (
    (("branch3x3", 384, 3, *HALF),),
    (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, *HALF)),
    ("reduce",),
)


def c(width):
    """17x17, its 7x7 kernels in factors (figure 6)."""
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


D = (
    (("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, *HALF)),
    (
        ("branch7x7x3_1", 192, 1),
        ("branch7x7x3_2", 192, (1, 7)),
        ("branch7x7x3_3", 192, (7, 1)),
        ("branch7x7x3_4", 192, 3, *HALF),
    ),
    ("reduce",),
)


def e(pool):
    """8x8 (figure 7)."""
    sides = lambda name: ((f"{name}a", 384, (1, 3)), (f"{name}b", 384, (3, 1)))
    return (
        (("branch1x1", 320, 1),),
        (("branch3x3_1", 384, 1), sides("branch3x3_2")),
        (("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3), sides("branch3x3dbl_3")),
        (pool, ("branch_pool", 192, 1)),
    )


BLOCKS = {
    "Mixed_5b": a(32),
    "Mixed_5c": a(64),
    "Mixed_5d": a(64),
    "Mixed_6a": B,
    "Mixed_6b": c(128),
    "Mixed_6c": c(160),
    "Mixed_6d": c(160),
    "Mixed_6e": c(192),
    "Mixed_7a": D,
    "Mixed_7b": e("avg"),
    "Mixed_7c": e("max"),
}

POOLS = {
    "avg": lambda x: nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False).astype(
        x.dtype
    ),
    "max": lambda x: nn.max_pool(x, (3, 3), (1, 1), "SAME"),
    "reduce": lambda x: nn.max_pool(x, (3, 3), (2, 2)),
}


class Layer(nn.Module):
    """relu(scale (x * kernel) + shift)"""

    features: int
    kernel: int | tuple[int, int]
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x):  # [B, H, W, C] -> [B, h, w, features]
        """Return the activations, by a convolution in full float32."""
        size = (self.kernel,) * 2 if isinstance(self.kernel, int) else self.kernel
        kernel = self.param(
            "kernel",
            nn.initializers.lecun_normal(),
            (*size, x.shape[-1], self.features),
            jnp.float32,
        )
        scale = self.param("scale", nn.initializers.ones, (self.features,), jnp.float32)
        shift = self.param("shift", nn.initializers.zeros, (self.features,), jnp.float32)
        # whole float32 on GPUs too: distances are of these numbers
        y = lax.conv_general_dilated(
            x,
            kernel,
            (self.stride,) * 2,
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision="highest",
        )
        return nn.relu(y * scale + shift)


def walk(x, row):  # [B, H, W, C] -> [B, h, w, D]
    """Apply a row of layers in turn, within the module whose __call__ this is in."""
    for part in row:
        if isinstance(part, str):
            x = POOLS[part](x)
        elif isinstance(part[0], str):
            name, *fields = part
            x = Layer(*fields, name=name)(x)
        else:
            x = jnp.concatenate([walk(x, [one]) for one in part], axis=-1)
    return x


class Block(nn.Module):
    """Branches on the same input, side by side."""

    branches: tuple

    @nn.compact
    def __call__(self, x):  # [B, H, W, C] -> [B, h, w, D]
        """Return the outputs of all branches, concatenated along the channels."""
        return jnp.concatenate([walk(x, row) for row in self.branches], axis=-1)


class InceptionV3(nn.Module):
    """Pictures in [-1, 1] -> features, the means of the last block over its 8x8 places,
    and the logits of 1,008 classes.
    """

    @nn.compact
    def __call__(self, x):  # [B, 299, 299, 3] -> [B, 2048], [B, 1008]
        """Return the features of images and the logits of the classes."""
        x = walk(x, STEM)
        for name, branches in BLOCKS.items():
            x = Block(branches, name=name)(x)
        features = x.mean((1, 2))
        return features, nn.Dense(LOGITS, precision="highest", name="fc")(features)
