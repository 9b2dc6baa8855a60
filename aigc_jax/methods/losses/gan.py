"""Losses of generative adversarial networks: logits in, one number per example out."""

from collections.abc import Callable
from typing import NamedTuple

from jax.nn import relu, softplus


class GanLoss(NamedTuple):
    """The two sides of a game, as functions of logits of the discriminator, [B] -> [B]
    each.

    real, fake   what the discriminator pays for a logit of a real and of a generated
                 example
    generator    what the generator pays for a logit of a generated example
    boundary     the logit above which an example counts as real; None where logits have
                 no zero
    relative     logits are taken relative to the mean logit of the other kind, and the
                 generator pays for the real ones too, by `opposite`: a two-sample loss
    """

    real: Callable
    fake: Callable
    generator: Callable
    boundary: float | None = 0.0
    relative: bool = False
    opposite: Callable | None = None

    def discriminator_loss(self, real, fake, smoothing=0.0):  # [B], [B] -> [B]
        """(1 - s) real(x) + s fake(x) + fake(G(z)): with one-sided label smoothing s a
        real example is a generated one with probability s (Salimans et al. 2016,
        section 3.4).
        """
        real, fake = self.compared(real, fake)
        return (1 - smoothing) * self.real(real) + smoothing * self.fake(real) + self.fake(fake)

    def generator_loss(self, real, fake):  # [B], [B] -> [B]
        """Return generator(fake), plus opposite(real) for a relative loss."""
        real, fake = self.compared(real, fake)
        opposite = self.opposite if self.relative else None
        return self.generator(fake) + (opposite(real) if opposite else 0)

    def compared(self, real, fake):
        """Return the logits of both kinds as the loss takes them: for a relative loss
        each minus the mean of the other kind, else unchanged.
        """
        return (real - fake.mean(), fake - real.mean()) if self.relative else (real, fake)


def accept(logit):
    """-log D with D = sigmoid(logit), in nats."""
    return softplus(-logit)


def reject(logit):
    """-log(1 - D), in nats."""
    return softplus(logit)


GAN = {
    # Goodfellow et al. 2014, eq. 1: -log D(x) - log(1 - D(G(z))) against log(1 -
    # D(G(z))), whose gradients are weak where D rejects the sample
    "minimax": GanLoss(accept, reject, lambda fake: -softplus(fake)),
    # ibid., section 3: -log D(G(z)), the same fixed point with strong gradients early
    "non_saturating": GanLoss(accept, reject, accept),
    # Mao et al. 2017, eq. 9: (D(x) - 1)^2 / 2 + D(G(z))^2 / 2 and (D(G(z)) - 1)^2 / 2
    "least_squares": GanLoss(
        lambda real: (real - 1) ** 2 / 2,
        lambda fake: fake**2 / 2,
        lambda fake: (fake - 1) ** 2 / 2,
        boundary=0.5,
    ),
    # Arjovsky et al. 2017, eq. 2: D(G(z)) - D(x) against -D(G(z)); D must be kept from
    # being steep
    "wasserstein": GanLoss(
        lambda real: -real, lambda fake: fake, lambda fake: -fake, boundary=None
    ),
    # Lim & Ye 2017; Miyato et al. 2018, eq. 16 and 17: max(0, 1 - D(x)) + max(0, 1 +
    # D(G(z))) against -D(G(z))
    "hinge": GanLoss(lambda real: relu(1 - real), lambda fake: relu(1 + fake), lambda fake: -fake),
    # Jolicoeur-Martineau 2019, section 4.2: the cross-entropy of D(x) - mean D(G(z))
    # and D(G(z)) - mean D(x), against the same with sides changed
    "relativistic_average": GanLoss(accept, reject, accept, relative=True, opposite=reject),
}
