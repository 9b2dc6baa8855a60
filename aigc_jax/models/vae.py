"""Variational autoencoders with L stochastic layers (Kingma & Welling 2013, appendix C;
Burda et al. 2016, section 2).

The encoder is q(z_1 | x) q(z_2 | z_1) ..., from the data up; the decoder is p(z_L) ...
p(z_1 | z_2) p(x | z_1), from the top down. All distributions of latents are normal with
diagonal covariances.

A network has `encode(i, below, c) -> (mean, log_var)` of the i-th latents, where i = 0
is the layer next to the data, and `decode(i, above, c)`, which returns (mean, log_var)
of the latents below for i > 0, and for i = 0 (location, scale) of the data, the
arguments of `methods.losses.likelihoods.LIKELIHOODS`. Latents may have any leading
axes. c [B, classes] are one-hot labels, or None.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from aigc_jax.core.method import Array
from aigc_jax.models.conv import Conv, ConvTranspose
from aigc_jax.models.layers import (
    ACTIVATIONS,
    Network,
    choice_error,
    count_halvings,
    divisibility_error,
)

FLOOR = -7.0  # lower bound of a learned log scale: less than a quarter of a grey level


def floor_log_var(log_scale):
    """Return the log scale with the smooth lower bound FLOOR (after Rybkin et al. 2021,
    section 3). Without it, the likelihood of a pixel that is always black is unbounded.
    """
    return FLOOR + nn.softplus(log_scale - FLOOR)


class Perceptron(nn.Module):
    """Dense layers of these widths, each followed by the activation."""

    widths: tuple[int, ...]
    activation: str
    types: Any

    @nn.compact
    def __call__(self, x: Array):  # [..., D] -> [..., widths[-1]]
        """Return the activations of the last layer; x if `widths` is empty."""
        for width in self.widths:
            x = ACTIVATIONS[self.activation](nn.Dense(width, **self.types)(x))
        return x


class Normal(nn.Module):
    """A normal distribution of `size` latents, whose mean and log variance are linear
    in the output of a perceptron.
    """

    size: int
    widths: tuple[int, ...]
    activation: str
    types: Any

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, ...]:  # [..., D] -> 2 x [..., size]
        """Return the mean and the log variance, [..., size] each."""
        x = Perceptron(self.widths, self.activation, self.types)(x)
        return nn.Dense(self.size, name="mean", **self.types)(x), nn.Dense(
            self.size, name="log_var", **self.types
        )(x)


class Flat(nn.Module):
    """A layer that flattens each example."""

    @nn.compact
    def __call__(self, x: Array) -> Array:  # [B, *shape] -> [B, D]
        """Return x with D = prod(shape)."""
        return x.reshape(x.shape[0], -1)


class Convolutions(nn.Module):
    """Convolutions that halve the image, then a flattening: 28x28x1 -> 14x14x32 ->
    7x7x64 -> 3136 with layers (32, 64).
    """

    layers: tuple[int, ...]
    kernel: int
    activation: str
    types: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:  # [B, H, W, C] -> [B, D]
        """Return the activations of the last layer, flattened."""
        for features in self.layers:
            x = ACTIVATIONS[self.activation](
                Conv(features, (self.kernel,) * 2, strides=2, **self.types)(x)
            )
        return x.reshape(x.shape[0], -1)


class Values(nn.Module):
    """A perceptron on latents, then a linear layer to `outputs` numbers for every value
    of the data.
    """

    shape: tuple[int, ...]
    outputs: int
    widths: tuple[int, ...]
    activation: str
    types: Any

    @nn.compact
    def __call__(self, z: Array) -> list[Array]:  # [B, Z] -> outputs x [B, *shape]
        """Return a list of `outputs` arrays [B, *shape]."""
        x = Perceptron(self.widths, self.activation, self.types)(z)
        x = nn.Dense(self.outputs * math.prod(self.shape), **self.types)(x)
        return [part.reshape(-1, *self.shape) for part in jnp.split(x, self.outputs, axis=-1)]


class Deconvolutions(nn.Module):
    """A perceptron and a dense layer to small images, transposed convolutions that
    double their size, and one to the channels of the data: z -> 7x7x64 -> 14x14x64 ->
    28x28x32 -> 28x28x1 with layers (64, 32).
    """

    shape: tuple[int, ...]
    outputs: int
    widths: tuple[int, ...]
    layers: tuple[int, ...]
    kernel: int
    activation: str
    types: Any

    @nn.compact
    def __call__(self, z: Array) -> list[Array]:  # [B, Z] -> outputs x [B, H, W, C]
        """Return a list of `outputs` arrays [B, H, W, C]."""
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
    """A VAE of dense layers: 784 -> widths[0] -> z[0] -> widths[1] -> z[1] ..., and a
    decoder in the opposite order. With widths ((500,),) and z (20,) the layers are
    784-500-20-500-784 (Kingma & Welling 2013, appendix C).
    """

    shape: tuple[int, ...]
    latent_dims: tuple[int, ...]
    scale: str  # of `methods.losses.likelihoods.Likelihood`
    widths: tuple[tuple[int, ...], ...]  # between the data and z[0], between z[0] and z[1], ...
    activation: str
    classes: int = 0  # of the labels that condition the network
    pseudo: int | None = None  # pseudo-inputs of a VampPrior
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @property
    def types(self):
        """The dtypes of a layer's computations and parameters, as keyword arguments."""
        return dict(dtype=self.dtype, param_dtype=self.param_dtype)

    @property
    def outputs(self):
        """The decoder's outputs per value of the data: 2 if each value has a scale."""
        return 2 if self.scale == "pixel" else 1

    def shape_error(self) -> str:
        """Return an error message if `widths` and `z` differ in length, or ''."""
        if len(self.widths) != len(self.latent_dims):
            return (
                f"widths = {self.widths} are for {len(self.widths)} stochastic layers, and "
                f"config.latent_dims = {self.latent_dims} has {len(self.latent_dims)}"
            )
        return ""

    def bottom(self):
        """Return the first module of the encoder and the last module of the decoder."""
        return Flat(), Values(
            self.shape, self.outputs, self.widths[0][::-1], self.activation, self.types
        )

    def setup(self) -> None:
        """Create the layers of q and p, and the scale and pseudo-inputs if learned."""
        self.reader, writer = self.bottom()
        above = range(1, len(self.latent_dims))
        self.q = [
            Normal(z, w, self.activation, self.types)
            for z, w in zip(self.latent_dims, self.widths, strict=True)
        ]
        self.p = [
            writer,
            *(
                Normal(self.latent_dims[i - 1], self.widths[i][::-1], self.activation, self.types)
                for i in above
            ),
        ]
        if self.scale == "scalar":
            self.spread = self.param("spread", nn.initializers.zeros, (), self.param_dtype)
        if self.pseudo:
            self.inputs = self.param(
                "inputs", nn.initializers.normal(1.0), (self.pseudo, *self.shape), self.param_dtype
            )

    def encode(
        self, i: int, below, c: Array | None = None
    ) -> tuple[Array, ...]:  # [..., D] -> 2 x [..., Z]
        """Return the mean and the log variance of q(z_i | below), where `below` are the
        latents of the layer below, or the data for i = 0.
        """
        if i == 0:
            below = self.reader(below)
        return self.q[i](join_condition(below, c))

    def decode(self, i: int, above, c: Array | None = None):
        """Return the parameters of p(below | above).

        Args:
          i: index of the stochastic layer of `above`.
          above: latents z_i [..., Z].
          c: one-hot labels [B, classes], or None.

        Returns:
          For i > 0 the mean and the log variance, [..., Z'] each. For i = 0 the
          location [..., *shape], and the log scale: of the same shape, [] or None.
        """
        above = join_condition(above, c)
        if i:
            return self.p[i](above)
        out = [
            x.reshape(*above.shape[:-1], *self.shape)
            for x in self.p[0](above.reshape(-1, above.shape[-1]))
        ]
        if self.scale == "scalar":
            out.append(self.spread)
        return out[0], floor_log_var(out[1]) if len(out) > 1 else None

    def pseudo_inputs(self) -> Array:  # -> [C, *shape], any real numbers
        """Return the stored pseudo-inputs, before `Observation.squash`."""
        return self.inputs

    def __call__(self, x: Array, c: Array | None = None):  # touches every parameter, for `init`
        """Return the outputs of all layers, for `init`; the latents of p are zeros."""
        below = x
        for i in range(len(self.latent_dims)):
            below, _ = self.encode(i, below, c)
        out = [
            self.decode(i, jnp.zeros((1, z)) if c is None else jnp.zeros((len(c), z)), c)
            for i, z in enumerate(self.latent_dims)
        ]
        return out, self.pseudo_inputs() if self.pseudo else None


class ConvVAE(MLPVAE):
    """A VAE of convolutions next to the data and dense layers above, with a decoder in
    the opposite order.

    28x28x1 -> 14x14x32 -> 7x7x64 -> widths[0] -> z[0] with channels (32, 64), or with
    width 32. `width` sets the number of convolutions to the number of possible halvings
    of the image (8 to 128 pixels, grey or colour).
    """

    kernel: int = 4
    channels: tuple[int, ...] = ()
    width: int | None = None

    @property
    def layers(self):
        """The channels of every halving, from the largest images to the smallest."""
        return self.channels or count_halvings(self.shape, self.width)

    def shape_error(self) -> str:
        """Return an error message if a layer cannot halve the data or if the fields of
        MLPVAE do not match, or ''.
        """
        return (
            choice_error(self)
            or divisibility_error(self.layers, self.shape)
            or super().shape_error()
        )

    def bottom(self):
        """Return the convolutions of the encoder and those of the decoder."""
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


def join_condition(
    x: Array, c: Array | None
) -> Array:  # [..., D], [B, classes] -> [..., D + classes]
    """Return x and the one-hot labels c concatenated; x if c is None."""
    return (
        x
        if c is None
        else jnp.concatenate([x, jnp.broadcast_to(c, (*x.shape[:-1], c.shape[-1]))], axis=-1)
    )


# config.network -> class
NETWORKS = {"mlp": MLPVAE, "conv": ConvVAE}
