"""Variational autoencoders with L stochastic layers (Kingma & Welling 2013, appendix C;
Burda et al. 2016, section 2).

The encoder is q(z_1 | x) q(z_2 | z_1) ..., from the data up; the decoder is p(z_L) ...
p(z_1 | z_2) p(x | z_1), from the top down. All distributions of latents are normal with
diagonal covariances.

A network has `encode(layer, below, label) -> (mean, log_var)` of a layer's latents,
where layer 0 is next to the data, and `decode(layer, above, label)`, which returns
(mean, log_var) of the latents below for layer > 0, and for layer 0 (location, scale) of
the data, the arguments of `methods.losses.likelihoods.LIKELIHOODS`. Latents may have
any leading axes. label [B, classes] is one-hot, or None.
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
    channels_or_width_error,
    divisibility_error,
    halving_channels,
)

FLOOR = -7.0  # lower bound of a learned log scale: less than a quarter of a grey level
# Bounds of the log variance of latents, those of the autoencoder of latent diffusion
# (Rombach et al. 2022, their program). With several stochastic layers the variance of a
# layer is exponential in latents scaled by the variance of the layer before: without
# bounds an untrained network of unbounded activations has infinite divergences.
LOG_VAR_BOUNDS = (-30.0, 20.0)


def floor_log_scale(log_scale: Array) -> Array:  # [...] -> [...], above FLOOR
    """Return the log scale with the smooth lower bound FLOOR (after Rybkin et al. 2021,
    section 3). Without it, the likelihood of a pixel that is always black is unbounded.
    """
    return FLOOR + nn.softplus(log_scale - FLOOR)


class Perceptron(nn.Module):
    """Dense layers of these widths, each followed by the activation."""

    widths: tuple[int, ...]
    activation: str
    dtype_fields: dict[str, Any]

    @nn.compact
    def __call__(self, x: Array) -> Array:  # [..., D] -> [..., widths[-1]]
        """Return the activations of the last layer; x if `widths` is empty."""
        for width in self.widths:
            x = ACTIVATIONS[self.activation](nn.Dense(width, **self.dtype_fields)(x))
        return x


class Normal(nn.Module):
    """A normal distribution of `size` latents, whose mean and log variance are linear
    in the output of a perceptron, the latter within LOG_VAR_BOUNDS.
    """

    size: int
    widths: tuple[int, ...]
    activation: str
    dtype_fields: dict[str, Any]

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, ...]:  # [..., D] -> 2 x [..., size]
        """Return the mean and the log variance, [..., size] each."""
        x = Perceptron(self.widths, self.activation, self.dtype_fields)(x)
        mean = nn.Dense(self.size, name="mean", **self.dtype_fields)(x)
        log_var = nn.Dense(self.size, name="log_var", **self.dtype_fields)(x)
        return mean, jnp.clip(log_var, *LOG_VAR_BOUNDS)


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
    dtype_fields: dict[str, Any]

    @nn.compact
    def __call__(self, x: Array) -> Array:  # [B, H, W, C] -> [B, D]
        """Return the activations of the last layer, flattened."""
        for features in self.layers:
            x = ACTIVATIONS[self.activation](
                Conv(features, (self.kernel,) * 2, strides=2, **self.dtype_fields)(x)
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
    dtype_fields: dict[str, Any]

    @nn.compact
    def __call__(self, z: Array) -> list[Array]:  # [B, Z] -> outputs x [B, *shape]
        """Return a list of `outputs` arrays [B, *shape]."""
        x = Perceptron(self.widths, self.activation, self.dtype_fields)(z)
        x = nn.Dense(self.outputs * math.prod(self.shape), **self.dtype_fields)(x)
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
    dtype_fields: dict[str, Any]

    @nn.compact
    def __call__(self, z: Array) -> list[Array]:  # [B, Z] -> outputs x [B, H, W, C]
        """Return a list of `outputs` arrays [B, H, W, C]."""
        height, width, colours = self.shape
        times = 2 ** len(self.layers)
        small = (height // times, width // times, self.layers[0])
        x = Perceptron((*self.widths, math.prod(small)), self.activation, self.dtype_fields)(
            z
        ).reshape(-1, *small)
        for features in self.layers:
            x = ACTIVATIONS[self.activation](
                ConvTranspose(features, (self.kernel,) * 2, strides=2, **self.dtype_fields)(x)
            )
        return jnp.split(
            ConvTranspose(self.outputs * colours, (self.kernel,) * 2, **self.dtype_fields)(x),
            self.outputs,
            axis=-1,
        )


class MLPVAE(Network):
    """A VAE of dense layers: 784 -> widths[0] -> latent_dims[0] -> widths[1] ->
    latent_dims[1] ..., and a decoder in the opposite order. With widths ((500,),) and
    latent_dims (20,) the layers are 784-500-20-500-784 (Kingma & Welling 2013, appendix
    C).
    """

    shape: tuple[int, ...]
    latent_dims: tuple[int, ...]  # of each layer of latents, from the data up
    scale: str  # of `methods.losses.likelihoods.Likelihood`
    # Of the dense layers between the data and the first latents, between these and the
    # next, ...
    widths: tuple[tuple[int, ...], ...]
    activation: str
    classes: int = 0  # of the labels that condition the network
    pseudo: int | None = None  # pseudo-inputs of a VampPrior
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @property
    def dtype_fields(self) -> dict[str, Any]:  # {dtype, param_dtype}
        """The dtypes of a layer's computations and parameters, as keyword arguments."""
        return dict(dtype=self.dtype, param_dtype=self.param_dtype)

    @property
    def outputs_per_value(self) -> int:  # 1 (location), or 2 (location and scale)
        """The decoder's outputs per value of the data: 2 if each value has a scale."""
        return 2 if self.scale == "pixel" else 1

    def config_error(self) -> str:  # '' if len(widths) == len(latent_dims)
        """Return an error message if `widths` and `latent_dims` differ in length, or
        ''.
        """
        if len(self.widths) != len(self.latent_dims):
            return (
                f"widths = {self.widths} are for {len(self.widths)} stochastic layers, and "
                f"config.latent_dims = {self.latent_dims} has {len(self.latent_dims)}"
            )
        return ""

    def make_data_layers(self) -> tuple[nn.Module, nn.Module]:  # first of q, last of p
        """Return the first module of the encoder and the last module of the decoder."""
        return Flat(), Values(
            self.shape,
            self.outputs_per_value,
            self.widths[0][::-1],
            self.activation,
            self.dtype_fields,
        )

    def setup(self) -> None:
        """Create the layers of q and p, and the scale and pseudo-inputs if learned."""
        self.reader, writer = self.make_data_layers()
        above = range(1, len(self.latent_dims))
        self.q = [
            Normal(z, w, self.activation, self.dtype_fields)
            for z, w in zip(self.latent_dims, self.widths, strict=True)
        ]
        self.p = [
            writer,
            *(
                Normal(
                    self.latent_dims[i - 1],
                    self.widths[i][::-1],
                    self.activation,
                    self.dtype_fields,
                )
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
        self, layer: int, below: Array, label: Array | None = None
    ) -> tuple[Array, ...]:  # [..., D], [B, classes] -> mean, log variance: [..., Z]
        """Return the mean and the log variance, [..., Z'] each, of q(latents of this
        layer | below).

        Args:
          layer: index of the stochastic layer, 0 next to the data.
          below: latents [..., Z] of the layer below; for layer 0 the data [B, *shape].
          label: one-hot labels [B, classes], or None.
        """
        if layer == 0:
            below = self.reader(below)
        return self.q[layer](append_label(below, label))

    def decode(
        self, layer: int, above: Array, label: Array | None = None
    ) -> tuple[Array, Array | None]:  # [..., Z] -> mean, log variance; (location, log scale) at 0
        """Return the parameters of p(below | above).

        Args:
          layer: index of the stochastic layer of `above`.
          above: latents [..., Z] of this layer.
          label: one-hot labels [B, classes], or None.

        Returns:
          For layer > 0 the mean and the log variance, [..., Z'] each. For layer 0 the
          location [..., *shape], and the log scale: of the same shape, [] or None.
        """
        above = append_label(above, label)
        if layer:
            return self.p[layer](above)
        out = [
            x.reshape(*above.shape[:-1], *self.shape)
            for x in self.p[0](above.reshape(-1, above.shape[-1]))
        ]
        if self.scale == "scalar":
            out.append(self.spread)
        return out[0], floor_log_scale(out[1]) if len(out) > 1 else None

    def raw_pseudo_inputs(self) -> Array:  # -> [pseudo, *shape], any real numbers (before `squash`)
        """Return the stored pseudo-inputs, which `Observation.squash_to_target_range`
        maps to the range of x.
        """
        return self.inputs

    def __call__(self, x: Array, label: Array | None = None) -> Any:  # touches all parameters
        """Return the outputs of all layers, for `init`; the latents of p are zeros."""
        below = x
        for i in range(len(self.latent_dims)):
            below, _ = self.encode(i, below, label)
        out = [
            self.decode(
                i, jnp.zeros((1, z)) if label is None else jnp.zeros((len(label), z)), label
            )
            for i, z in enumerate(self.latent_dims)
        ]
        return out, self.raw_pseudo_inputs() if self.pseudo else None


class ConvVAE(MLPVAE):
    """A VAE of convolutions next to the data and dense layers above, with a decoder in
    the opposite order.

    28x28x1 -> 14x14x32 -> 7x7x64 -> widths[0] -> latent_dims[0] with channels (32, 64),
    or with width 32. `width` sets the number of convolutions to the number of possible
    halvings of the image (8 to 128 pixels, grey or colour).
    """

    kernel: int = 4
    channels: tuple[int, ...] = ()
    width: int | None = None

    @property
    def layer_channels(self) -> tuple[int, ...]:  # largest images first
        """The channels of every halving, from the largest images to the smallest."""
        return self.channels or halving_channels(self.shape, self.width)

    def config_error(self) -> str:  # '' if `shape` can be halved and `widths` fit
        """Return an error message if a layer cannot halve the data or if the fields of
        MLPVAE do not match, or ''.
        """
        return (
            channels_or_width_error(self)
            or divisibility_error(self.layer_channels, self.shape)
            or super().config_error()
        )

    def make_data_layers(self) -> tuple[nn.Module, nn.Module]:  # first of q, last of p
        """Return the convolutions of the encoder and those of the decoder."""
        reader = Convolutions(self.layer_channels, self.kernel, self.activation, self.dtype_fields)
        return reader, Deconvolutions(
            self.shape,
            self.outputs_per_value,
            self.widths[0][::-1],
            self.layer_channels[::-1],
            self.kernel,
            self.activation,
            self.dtype_fields,
        )


def append_label(
    x: Array, label: Array | None
) -> Array:  # [..., B, D], [B, classes] -> [..., B, D + classes]; x for None
    """Return x and the one-hot labels concatenated; x if `label` is None.

    Args:
      x: [..., B, D] or [B, D].
      label: one-hot labels [B, classes], or None.
    """
    return (
        x
        if label is None
        else jnp.concatenate(
            [x, jnp.broadcast_to(label, (*x.shape[:-1], label.shape[-1]))], axis=-1
        )
    )


# config.network -> class
NETWORKS = {"mlp": MLPVAE, "conv": ConvVAE}
