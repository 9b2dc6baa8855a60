"""Losses of generative adversarial networks: functions of logits, one value per
example.
"""

from collections.abc import Callable
from typing import NamedTuple

from jax.nn import relu, softplus

from aigc_jax.core.method import Array


class GanLoss(NamedTuple):
    """The losses of discriminator and generator, as functions of discriminator logits,
    [B] -> [B] each. A discriminator of packs has one logit per pack.

    Attributes:
      real: the discriminator's loss for the logits of real examples.
      fake: the discriminator's loss for the logits of generated examples.
      generator: the generator's loss for the logits of generated examples.
      boundary: the logit above which an example is classified as real; None where the
        logits have no natural zero.
      relative: whether the loss is a two-sample loss: logits are taken relative to the
        mean logit of the other kind, and `opposite` of the real logits is added to the
        generator's loss.
      opposite: the generator's loss for the logits of real examples; None if the loss
        is not relative.
    """

    real: Callable[[Array], Array]
    fake: Callable[[Array], Array]
    generator: Callable[[Array], Array]
    boundary: float | None = 0.0
    relative: bool = False
    opposite: Callable[[Array], Array] | None = None

    def discriminator_loss(
        self, real: Array, fake: Array, smoothing: Array | float = 0.0
    ) -> Array:  # [B], [B] -> [B]
        """Return (1 - s) real(x) + s fake(x) + fake(G(z)): one-sided label smoothing s
        labels a real example as generated with probability s (Salimans et al. 2016,
        section 3.4).

        Args:
          real: logits [B] of real examples.
          fake: logits [B] of generated examples.
          smoothing: s, in [0, 1].
        """
        real, fake = self.center_if_relative(real, fake)
        return (1 - smoothing) * self.real(real) + smoothing * self.fake(real) + self.fake(fake)

    def generator_loss(self, real: Array, fake: Array) -> Array:  # [B], [B] -> [B]
        """Return generator(fake), plus opposite(real) for a relative loss."""
        real, fake = self.center_if_relative(real, fake)
        opposite = self.opposite if self.relative else None
        return self.generator(fake) + (opposite(real) if opposite else 0)

    def center_if_relative(
        self, real: Array, fake: Array
    ) -> tuple[Array, Array]:  # [B], [B] -> [B], [B]
        """Return the logits that enter the loss: for a relative loss each minus the
        mean logit of the other kind, else unchanged.
        """
        return (real - fake.mean(), fake - real.mean()) if self.relative else (real, fake)


def nll_as_real(logit: Array) -> Array:  # [...] -> [...]
    """Return -log D in nats, where D = sigmoid(logit)."""
    return softplus(-logit)


def nll_as_fake(logit: Array) -> Array:  # [...] -> [...]
    """Return -log(1 - D) in nats, where D = sigmoid(logit)."""
    return softplus(logit)


GAN = {
    # Goodfellow et al. 2014, eq. 1: -log D(x) - log(1 - D(G(z))) against log(1 -
    # D(G(z))), whose gradients are weak where D rejects the sample
    "minimax": GanLoss(nll_as_real, nll_as_fake, lambda fake: -softplus(fake)),
    # ibid., section 3: -log D(G(z)), the same fixed point with strong gradients early
    "non_saturating": GanLoss(nll_as_real, nll_as_fake, nll_as_real),
    # Mao et al. 2017, eq. 9: (D(x) - 1)^2 / 2 + D(G(z))^2 / 2 and (D(G(z)) - 1)^2 / 2
    "least_squares": GanLoss(
        lambda real: (real - 1) ** 2 / 2,
        lambda fake: fake**2 / 2,
        lambda fake: (fake - 1) ** 2 / 2,
        boundary=0.5,
    ),
    # Arjovsky et al. 2017, eq. 2: D(G(z)) - D(x) against -D(G(z)); the slope of D must
    # be bounded by a regularizer
    "wasserstein": GanLoss(
        lambda real: -real, lambda fake: fake, lambda fake: -fake, boundary=None
    ),
    # Lim & Ye 2017; Miyato et al. 2018, eq. 16 and 17: max(0, 1 - D(x)) + max(0, 1 +
    # D(G(z))) against -D(G(z))
    "hinge": GanLoss(lambda real: relu(1 - real), lambda fake: relu(1 + fake), lambda fake: -fake),
    # Jolicoeur-Martineau 2019, section 4.2: the cross-entropy of D(x) - mean D(G(z))
    # and D(G(z)) - mean D(x), against the same with real and generated exchanged
    "relativistic_average": GanLoss(
        nll_as_real, nll_as_fake, nll_as_real, relative=True, opposite=nll_as_fake
    ),
}
