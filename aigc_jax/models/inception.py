"""Inception-v3 (Szegedy et al. 2016) as the Fréchet Inception Distance has it: the TensorFlow network of 2015-12-05 with 1,008 logits, whose average
pools leave out the padding and whose last block pools by the maximum. For inference: batch normalization is a scale and a shift.

A block is a table of branches, a branch a row of layers (name, features, kernel, stride); "avg" and "max" pool 3x3. A tuple of layers in a row is
several layers on the same input, side by side.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

EPSILON = 1e-3  # of the batch normalizations that were folded
SIZE, FEATURES, LOGITS = 299, 2048, 1008

STEM = (("Conv2d_1a_3x3", 32, 3, 2), ("Conv2d_2a_3x3", 32, 3, "VALID"), ("Conv2d_2b_3x3", 64, 3), "reduce",
        ("Conv2d_3b_1x1", 80, 1), ("Conv2d_4a_3x3", 192, 3, "VALID"), "reduce")  # fmt: skip


def a(pool):
    return ((("branch1x1", 64, 1),), (("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
            (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)), ("avg", ("branch_pool", pool, 1)))  # fmt: skip


B = ((("branch3x3", 384, 3, 2),), (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2)), ("reduce",))


def c(width):
    row, column = (1, 7), (7, 1)
    double = (("branch7x7dbl_1", width, 1), ("branch7x7dbl_2", width, column), ("branch7x7dbl_3", width, row), ("branch7x7dbl_4", width, column),
              ("branch7x7dbl_5", 192, row))  # fmt: skip
    return ((("branch1x1", 192, 1),), (("branch7x7_1", width, 1), ("branch7x7_2", width, row), ("branch7x7_3", 192, column)), double,
            ("avg", ("branch_pool", 192, 1)))  # fmt: skip


D = ((("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)),
     (("branch7x7x3_1", 192, 1), ("branch7x7x3_2", 192, (1, 7)), ("branch7x7x3_3", 192, (7, 1)), ("branch7x7x3_4", 192, 3, 2)), ("reduce",))  # fmt: skip


def e(pool):
    sides = lambda name: ((f"{name}a", 384, (1, 3)), (f"{name}b", 384, (3, 1)))
    return ((("branch1x1", 320, 1),), (("branch3x3_1", 384, 1), sides("branch3x3_2")),
            (("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3), sides("branch3x3dbl_3")), (pool, ("branch_pool", 192, 1)))  # fmt: skip


BLOCKS = {"Mixed_5b": a(32), "Mixed_5c": a(64), "Mixed_5d": a(64), "Mixed_6a": B, "Mixed_6b": c(128), "Mixed_6c": c(160), "Mixed_6d": c(160),
          "Mixed_6e": c(192), "Mixed_7a": D, "Mixed_7b": e("avg"), "Mixed_7c": e("max")}  # fmt: skip

POOLS = {
    "avg": lambda x: nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False),
    "max": lambda x: nn.max_pool(x, (3, 3), (1, 1), "SAME"),
    "reduce": lambda x: nn.max_pool(x, (3, 3), (2, 2)),
}


class Layer(nn.Module):
    """relu(scale (x * kernel) + shift); of stride 1 as large as x, of stride 2 without padding."""

    features: int
    kernel: int | tuple[int, int]
    stride: int | str = 1  # or "VALID": 1, without padding

    @nn.compact
    def __call__(self, x):  # [B, H, W, C] -> [B, h, w, features]
        size = (self.kernel,) * 2 if isinstance(self.kernel, int) else self.kernel
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (*size, x.shape[-1], self.features))
        scale = self.param("scale", nn.initializers.ones, (self.features,))
        shift = self.param("shift", nn.initializers.zeros, (self.features,))
        step = 2 if self.stride == 2 else 1
        y = jax.lax.conv_general_dilated(x, kernel, (step, step), "SAME" if self.stride == 1 else "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return nn.relu(y * scale + shift)


def walk(x, row: Sequence):
    """A row of layers, one after another."""
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
    branches: tuple

    @nn.compact
    def __call__(self, x):
        return jnp.concatenate([walk(x, row) for row in self.branches], axis=-1)


class InceptionV3(nn.Module):
    """[B, 299, 299, 3] in [-1, 1] -> (features [B, 2048], logits [B, 1008])"""

    @nn.compact
    def __call__(self, x):
        x = walk(x, STEM)
        for name, branches in BLOCKS.items():
            x = Block(branches, name=name)(x)
        features = x.mean((1, 2))
        return features, nn.Dense(LOGITS, name="fc")(features)
