"""Losses: arrays in, one number per example out. Reductions belong to the methods, choices to the tables below."""

from collections.abc import Callable
from typing import NamedTuple

import jax


class GanLoss(NamedTuple):
    """The two sides of a game, on the discriminator's logits of real and of generated examples, [B] each."""

    discriminator: Callable  # (real [B], fake [B]) -> [B]
    generator: Callable  # (real [B], fake [B]) -> [B]


def cross_entropy_discriminator(real, fake):  # [B], [B] -> [B]
    """-log D(x) - log(1 - D(G(z))) with D = sigmoid(logit), in nats (Goodfellow et al. 2014, eq. 1, to be minimized)."""
    return jax.nn.softplus(-real) + jax.nn.softplus(fake)


def minimax_generator(real, fake):  # [B], [B] -> [B]
    """log(1 - D(G(z))), in nats (Goodfellow et al. 2014, eq. 1): weak gradients where D rejects the sample."""
    return -jax.nn.softplus(fake)


def non_saturating_generator(real, fake):  # [B], [B] -> [B]
    """-log D(G(z)), in nats (Goodfellow et al. 2014, section 3): the same fixed point, strong gradients early."""
    return jax.nn.softplus(-fake)


GAN = {
    "minimax": GanLoss(cross_entropy_discriminator, minimax_generator),
    "non_saturating": GanLoss(cross_entropy_discriminator, non_saturating_generator),
}
