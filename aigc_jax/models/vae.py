"""Variational autoencoders with L stochastic layers: q(z_1 | x) q(z_2 | z_1) ... from
the data up, p(z_L), ... p(z_1 | z_2) p(x | z_1) from the top down (Kingma & Welling
2013, appendix C; Burda et al. 2016, section 2). All distributions of latents are normal
with diagonal covariances.

A network has `encode(i, below, c) -> (mean, log_var)` of the i-th latents, from 0, the
nearest to the data, and `decode(i, above, c)`: for i > 0 (mean, log_var) of the latents
below, for i = 0 (location, scale) of the data, as
`methods.losses.likelihoods.LIKELIHOODS` read them. Leading axes are free. c [B,
classes] are one-hot labels, or None.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from aigc_jax.models.conv import Conv, ConvTranspose
from aigc_jax.models.layers import ACTIVATIONS, Network, halvings, unclear, undivided

FLOOR = -7.0  # of a learned scale's logarithm: less than a quarter of a grey level


def floored(log_scale):
    """Bounded below without a kink (after Rybkin et al. 2021, section 3): the
    likelihood of a pixel that is always black has no bound.
    """
    return FLOOR + nn.softplus(log_scale - FLOOR)


class Perceptron(nn.Module):
    """Dense layers of the given widths, each with the activation."""

    widths: tuple[int, ...]
    activation: str
    types: Any

    @nn.compact
    def __call__(self, x):  # [..., D] -> [..., widths[-1]]
        """Return the last layer's activations; x itself where there is no layer."""
        for width in self.widths:
            x = ACTIVATIONS[self.activation](nn.Dense(width, **self.types)(x))
        return x


class Normal(nn.Module):
    """A normal distribution of `size` latents whose mean and log variance are linear in
    what a perceptron makes of the input.
    """

    size: int
    widths: tuple[int, ...]
    activation: str
    types: Any

    @nn.compact
    def __call__(self, x):  # [..., D] -> 2 x [..., size]
        """Return mean and log variance, [..., size] each."""
        x = Perceptron(self.widths, self.activation, self.types)(x)
        return nn.Dense(self.size, name="mean", **self.types)(x), nn.Dense(
            self.size, name="log_var", **self.types
        )(x)


class Flat(nn.Module):
    """Pictures as rows of numbers."""

    @nn.compact
    def __call__(self, x):  # [B, *shape] -> [B, D]
        """Return x as rows of D = prod(shape) numbers."""
        return x.reshape(x.shape[0], -1)


class Convolutions(nn.Module):
    """Convolutions that halve the picture, as rows of numbers: 28x28x1 -> 14x14x32 ->
    7x7x64 -> 3136 with layers (32, 64).
    """

    layers: tuple[int, ...]
    kernel: int
    activation: str
    types: Any

    @nn.compact
    def __call__(self, x):  # [B, H, W, C] -> [B, D]
        """Return the last layer's activations as rows of D numbers."""
        for features in self.layers:
            x = ACTIVATIONS[self.activation](
                Conv(features, (self.kernel,) * 2, strides=2, **self.types)(x)
            )
        return x.reshape(x.shape[0], -1)


class Values(nn.Module):
    """A linear layer from what a perceptron makes of latents to `outputs` numbers for
    every value of the data.
    """

    shape: tuple[int, ...]
    outputs: int
    widths: tuple[int, ...]
    activation: str
    types: Any

    @nn.compact
    def __call__(self, z):  # [B, Z] -> outputs x [B, *shape]
        """Return `outputs` arrays [B, *shape] in a list."""
        x = Perceptron(self.widths, self.activation, self.types)(z)
        x = nn.Dense(self.outputs * math.prod(self.shape), **self.types)(x)
        return [part.reshape(-1, *self.shape) for part in jnp.split(x, self.outputs, axis=-1)]


class Deconvolutions(nn.Module):
    """A perceptron and a dense layer to small pictures, transposed convolutions that
    double them, one more to the data's channels: z -> 7x7x64 -> 14x14x64 -> 28x28x32 ->
    28x28x1 with layers (64, 32).
    """

    shape: tuple[int, ...]
    outputs: int
    widths: tuple[int, ...]
    layers: tuple[int, ...]
    kernel: int
    activation: str
    types: Any

    @nn.compact
    def __call__(self, z):  # [B, Z] -> outputs x [B, H, W, C]
        """Return `outputs` arrays [B, H, W, C] in a list."""
        height, width, colours = self.shape
        times = 2 ** len(self.layers)
        small = (height // times, width // times, self.layers[0])
        x = Perceptron((*self.widths, math.prod(small)), self.activation, self.types)(z).reshape(
            -1, *small
        )
        for features in self.layers:
            x = ACTIVATIONS[self.activation](
                ConvTranspose(features, (self.kernel,) * 2, strides=2, **self.types)(x)
            )
        return jnp.split(
            ConvTranspose(self.outputs * colours, (self.kernel,) * 2, **self.types)(x),
            self.outputs,
            axis=-1,
        )


class MLPVAE(Network):
    """Dense layers throughout: 784 -> widths[0] -> z[0] -> widths[1] -> z[1] ..., and
    back in the opposite order; with widths ((500,),) and z (20,) 784-500-20-500-784
    (Kingma & Welling 2013, appendix C).
    """

    shape: tuple[int, ...]
    z: tuple[int, ...]
    scale: str  # of `methods.losses.likelihoods.Likelihood`
    widths: tuple[tuple[int, ...], ...]  # between the data and z[0], between z[0] and z[1], ...
    activation: str
    classes: int = 0  # of the labels that it is conditioned on
    pseudo: int | None = None  # pseudo-inputs of a VampPrior
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @property
    def types(self):
        """The dtypes of a layer's computations and parameters, as keyword arguments."""
        return dict(dtype=self.dtype, param_dtype=self.param_dtype)

    @property
    def outputs(self):
        """The decoder's numbers for a value of the data: 2 where each has a scale."""
        return 2 if self.scale == "pixel" else 1

    def misfit(self):
        """Return why `widths` and `z` do not go together, or ''."""
        if len(self.widths) != len(self.z):
            return (
                f"widths = {self.widths} are for {len(self.widths)} stochastic layers, and "
                f"config.z = {self.z} for {len(self.z)}"
            )
        return ""

    def bottom(self):
        """What reads the data, and what writes them."""
        return Flat(), Values(
            self.shape, self.outputs, self.widths[0][::-1], self.activation, self.types
        )

    def setup(self):
        """Create the layers of q and p, the scale and the pseudo-inputs."""
        self.reader, writer = self.bottom()
        above = range(1, len(self.z))
        self.q = [
            Normal(z, w, self.activation, self.types)
            for z, w in zip(self.z, self.widths, strict=True)
        ]
        self.p = [
            writer,
            *(
                Normal(self.z[i - 1], self.widths[i][::-1], self.activation, self.types)
                for i in above
            ),
        ]
        if self.scale == "scalar":
            self.spread = self.param("spread", nn.initializers.zeros, (), self.param_dtype)
        if self.pseudo:
            self.inputs = self.param(
                "inputs", nn.initializers.normal(1.0), (self.pseudo, *self.shape), self.param_dtype
            )

    def encode(self, i, below, c=None):  # [..., D] -> 2 x [..., Z]
        """Return mean and log variance of q(z_i | below): the layer below, or data for
        i = 0.
        """
        if i == 0:
            below = self.reader(below)
        return self.q[i](joined(below, c))

    def decode(self, i, above, c=None):
        """Return the parameters of p(below | above), given z_i [..., Z] as `above`:
        mean and log variance, [..., Z'] each; for i = 0 the location [..., *shape] and
        its log scale, which is of the same shape, one number [] or None.
        """
        above = joined(above, c)
        if i:
            return self.p[i](above)
        out = [
            x.reshape(*above.shape[:-1], *self.shape)
            for x in self.p[0](above.reshape(-1, above.shape[-1]))
        ]
        if self.scale == "scalar":
            out.append(self.spread)
        return out[0], floored(out[1]) if len(out) > 1 else None

    def pseudo_inputs(self):  # -> [C, *shape], any real numbers
        """Return the pseudo-inputs as they are stored, before `Observation.squash`."""
        return self.inputs

    def __call__(self, x, c=None):  # touches every parameter, for `init`
        """Return the outputs of all layers, for `init`: those of p are of latents 0."""
        below = x
        for i in range(len(self.z)):
            below, _ = self.encode(i, below, c)
        out = [
            self.decode(i, jnp.zeros((1, z)) if c is None else jnp.zeros((len(c), z)), c)
            for i, z in enumerate(self.z)
        ]
        return out, self.pseudo_inputs() if self.pseudo else None


class ConvVAE(MLPVAE):
    """Convolutions next to the data, dense layers above: 28x28x1 -> 14x14x32 -> 7x7x64
    -> widths[0] -> z[0] with channels (32, 64), or width 32, which has as many layers
    as the picture allows (8 to 128 pixels, grey or colour); and back.
    """

    kernel: int = 4
    channels: tuple[int, ...] = ()
    width: int | None = None

    @property
    def layers(self):
        """The channels of every halving, from the data down."""
        return self.channels or halvings(self.shape, self.width)

    def misfit(self):
        """Return why the data cannot be halved once a layer, or why MLPVAE's fields do
        not go together, or ''.
        """
        return unclear(self) or undivided(self.layers, self.shape) or super().misfit()

    def bottom(self):
        """Return the convolutions that read the data, and those that write them."""
        reader = Convolutions(self.layers, self.kernel, self.activation, self.types)
        return reader, Deconvolutions(
            self.shape,
            self.outputs,
            self.widths[0][::-1],
            self.layers[::-1],
            self.kernel,
            self.activation,
            self.types,
        )


def joined(x, c):  # [..., D], [B, classes] -> [..., D + classes]
    """Return x with the one-hot labels c after it; x itself where c is None."""
    return (
        x
        if c is None
        else jnp.concatenate([x, jnp.broadcast_to(c, (*x.shape[:-1], c.shape[-1]))], axis=-1)
    )


# config.network -> class
NETWORKS = {"mlp": MLPVAE, "conv": ConvVAE}
