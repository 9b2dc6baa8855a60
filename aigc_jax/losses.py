"""Losses: arrays in, one number per example out; two-sample losses take the batch, return [] and say so. Reductions belong to the
methods, choices to the tables below. Logarithms are natural: nats."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, logsumexp, relu, softplus


class GanLoss(NamedTuple):
    """The two sides of a game, as functions of logits of the discriminator, [B] -> [B] each.

    real, fake   what the discriminator pays for a logit of a real and of a generated example
    generator    what the generator pays for a logit of a generated example
    boundary     the logit above which an example counts as real; None where logits have no zero
    relative     logits are taken relative to the mean logit of the other kind, and the generator pays for the real ones too, by
                 `opposite`: a two-sample loss
    """

    real: Callable
    fake: Callable
    generator: Callable
    boundary: float | None = 0.0
    relative: bool = False
    opposite: Callable | None = None

    def discriminator_loss(self, real, fake, smoothing=0.0):  # [B], [B] -> [B]
        """(1 - s) real(x) + s fake(x) + fake(G(z)): with one-sided label smoothing s a real example is a generated one with probability s
        (Salimans et al. 2016, section 3.4)."""
        real, fake = self.compared(real, fake)
        return (1 - smoothing) * self.real(real) + smoothing * self.fake(real) + self.fake(fake)

    def generator_loss(self, real, fake):  # [B], [B] -> [B]
        real, fake = self.compared(real, fake)
        return self.generator(fake) + (self.opposite(real) if self.relative else 0)

    def compared(self, real, fake):
        return (real - fake.mean(), fake - real.mean()) if self.relative else (real, fake)


def accept(logit):
    """-log D with D = sigmoid(logit), in nats."""
    return softplus(-logit)


def reject(logit):
    """-log(1 - D), in nats."""
    return softplus(logit)


GAN = {
    # Goodfellow et al. 2014, eq. 1: -log D(x) - log(1 - D(G(z))) against log(1 - D(G(z))), whose gradients are weak where D rejects the sample
    "minimax": GanLoss(accept, reject, lambda fake: -softplus(fake)),
    # ibid., section 3: -log D(G(z)), the same fixed point with strong gradients early
    "non_saturating": GanLoss(accept, reject, accept),
    # Mao et al. 2017, eq. 9: (D(x) - 1)^2 / 2 + D(G(z))^2 / 2 against (D(G(z)) - 1)^2 / 2
    "least_squares": GanLoss(lambda real: (real - 1) ** 2 / 2, lambda fake: fake**2 / 2, lambda fake: (fake - 1) ** 2 / 2, boundary=0.5),
    # Arjovsky et al. 2017, eq. 2: D(G(z)) - D(x) against -D(G(z)); D must be kept from being steep
    "wasserstein": GanLoss(lambda real: -real, lambda fake: fake, lambda fake: -fake, boundary=None),
    # Lim & Ye 2017; Miyato et al. 2018, eq. 16 and 17: max(0, 1 - D(x)) + max(0, 1 + D(G(z))) against -D(G(z))
    "hinge": GanLoss(lambda real: relu(1 - real), lambda fake: relu(1 + fake), lambda fake: -fake),
    # Jolicoeur-Martineau 2019, section 4.2: the cross-entropy of D(x) - mean D(G(z)) and D(G(z)) - mean D(x), against the same with sides changed
    "relativistic_average": GanLoss(accept, reject, accept, relative=True, opposite=reject),
}


# -- likelihoods of pictures, value by value: sum them over the axes of an example


class Likelihood(NamedTuple):
    """p(x | z): what a decoder's outputs mean. `scale` says where the spread comes from: "none" there is none, "hp" a
    hyper-parameter, "scalar" one parameter of the model, "pixel" an output of the decoder for every value."""

    log_prob: Callable  # (x [..., *S], location [..., *S], scale [] or [..., *S], levels) -> [..., *S]
    mean: Callable  # location -> the expected value, in the data's range
    scale: str
    discrete: bool  # a probability of whole grey levels, so that bits per dimension mean something


def bernoulli(x, logits, _scale, _levels):  # -> [..., *S]
    """x log s(l) + (1 - x) log(1 - s(l)), s the sigmoid, for x in {0, 1} (Kingma & Welling 2013, appendix C.1)."""
    return x * logits - softplus(logits)


def gaussian(x, mean, log_var, _levels):  # -> [..., *S]
    """log N(x; mean, exp(log_var)) (Kingma & Welling 2013, appendix C.2). With a fixed variance v: -(x - mean)^2 / 2v + constant."""
    return -0.5 * (math.log(2 * math.pi) + log_var + (x - mean) ** 2 * jnp.exp(-log_var))


def discretized_logistic(x, mean, log_scale, levels):  # -> [..., *S]
    """log P of one of levels + 1 equidistant values in [-1, 1] under a logistic distribution: the mass within half a step of it,
    of the whole tail at the two ends (Kingma et al. 2016, section 5.2; Salimans et al. 2017, eq. 2). The masses sum to 1.

    Between cuts b < a the mass is s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), s the sigmoid: no difference of near numbers.
    """
    width = 2 / levels * jnp.exp(-log_scale)
    centre = (x - mean) * jnp.exp(-log_scale)
    upper, lower = log_sigmoid(centre + width / 2), log_sigmoid(-(centre - width / 2))
    inside = upper + lower + jnp.log(-jnp.expm1(-width))
    half = 1 / levels
    return jnp.where(x < -1 + half, upper, jnp.where(x > 1 - half, lower, inside))


def identity(location):
    return location


LIKELIHOODS = {
    "bernoulli": Likelihood(bernoulli, jax.nn.sigmoid, "none", True),
    "gaussian": Likelihood(gaussian, identity, "hp", False),
    "gaussian_scalar": Likelihood(gaussian, identity, "scalar", False),
    "gaussian_pixel": Likelihood(gaussian, identity, "pixel", False),
    "logistic": Likelihood(discretized_logistic, identity, "scalar", True),
    "logistic_pixel": Likelihood(discretized_logistic, identity, "pixel", True),
}


# -- latent variables


def log_normal(z, mean, log_var):  # 3 x [..., Z] -> [...]
    """log N(z; mean, diag(exp(log_var)))."""
    return gaussian(z, mean, log_var, None).sum(-1)


def kl_normal(mean, log_var):  # 2 x [..., Z] -> [..., Z]
    """KL(N(mean, exp(log_var)) || N(0, 1)) of each latent: (mean^2 + exp(log_var) - 1 - log_var) / 2
    (Kingma & Welling 2013, appendix B)."""
    return 0.5 * (mean**2 + jnp.exp(log_var) - 1 - log_var)


def log_mixture(z, mean, log_var):  # [..., Z], 2 x [C, Z] -> [...]
    """log of the mean of C normal densities: the VampPrior, whose parts are posteriors of pseudo-inputs (Tomczak & Welling 2018, eq. 9)."""
    return logsumexp(log_normal(z[..., None, :], mean, log_var), axis=-1) - math.log(len(mean))


def free_bits(kl, least):  # [B, Z] -> []
    """sum_j max(least, mean of KL_j over the batch): no gain in pressing a latent below `least` nats (Kingma et al. 2016, eq. 15).
    Takes the whole batch."""
    return jnp.maximum(kl.mean(0), least).sum()


def iwae(log_w):  # [K, B] -> [B]
    """log of the mean of K importance weights w = p(x, z) / q(z | x): a lower bound of log p(x) that does not fall with K, the
    ELBO at K = 1 (Burda et al. 2016, eq. 8)."""
    return logsumexp(log_w, axis=0) - math.log(len(log_w))


@jax.custom_vjp
def scale_gradient(x, factor):
    """x, whose gradient is multiplied by `factor`."""
    return x


scale_gradient.defvjp(lambda x, factor: (x, factor), lambda factor, g: (g * factor, jnp.zeros_like(factor)))


def total_correlation(z, mean, log_var, n):  # 3 x [B, Z] -> []
    """KL(q(z) || prod_j q(z_j)), estimated on the batch: q(z_i) ~ 1/(n B) sum_k q(z_i | x_k), and for each latent alike (Chen et
    al. 2018, eq. 3 and 5, minibatch-weighted sampling; n examples in the data set). A biased estimate. Takes the whole batch."""
    each = gaussian(z[:, None], mean[None], log_var[None], None)  # [B, B, Z]
    log_n = math.log(n) + math.log(len(z))
    joint = logsumexp(each.sum(-1), axis=1) - log_n
    product = (logsumexp(each, axis=1) - log_n).sum(-1)
    return (joint - product).mean()


def mmd(a, b):  # [B, Z], [B, Z] -> []
    """The squared maximum mean discrepancy of two samples (Gretton et al. 2012, eq. 3, unbiased) for the kernel
    C / (C + |a - b|^2), C = 2 Z (Tolstikhin et al. 2018, section 4): 0 in the mean where both have one distribution.
    Takes the whole batch."""
    c, n = 2 * a.shape[-1], len(a)

    def kernel(a, b):
        return c / (c + jnp.sum((a[:, None] - b[None]) ** 2, axis=-1))

    off = lambda k: (k.sum() - jnp.trace(k)) / (n * (n - 1))
    return off(kernel(a, a)) + off(kernel(b, b)) - 2 * kernel(a, b).mean()


# -- tokens


def along(reduce, x):  # [..., V] -> [...]
    """A reduction over the last axis, at most 32 numbers at a time where that divides it: XLA on CPUs goes over what is longer twice."""
    while x.shape[-1] > 32 and (part := max(n for n in range(1, 33) if x.shape[-1] % n == 0)) > 1:
        x = reduce(x.reshape(*x.shape[:-1], part, -1), axis=-2)
    return reduce(x, axis=-1)


def in_chunks(score, x, target, size):  # [B, T, D], [B, T] -> [B, T]
    """score(x, target) of `size` positions after another; what it computes on the way, such as logits, is there for so many at once, forwards and
    backwards."""
    parts = lambda y: y.reshape(len(y), -1, size, *y.shape[2:]).swapaxes(0, 1)
    each = jax.lax.map(jax.checkpoint(lambda part: score(*part)), (parts(x), parts(target)))
    return each.swapaxes(0, 1).reshape(target.shape)


def _cross_entropy(logits, target, smoothing, size):
    x = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    top = jax.lax.stop_gradient(along(jnp.max, x))
    total = top + jnp.log(along(jnp.sum, jnp.exp(x - top[..., None])))
    ids = jnp.arange(x.shape[-1])
    value = total - along(jnp.sum, jnp.where(ids == target[..., None], x, 0))  # a sum, which divides over devices where a look-up would not
    if smoothing:
        value = (1 - smoothing) * value + smoothing * (total - along(jnp.sum, jnp.where(ids < size, x, 0)) / size)
    return value, (logits, target, total)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def cross_entropy(logits, target, smoothing, size):  # [..., V], [...] -> [...]
    """-log softmax(logits)[target] in nats; with smoothing s against the distribution (1 - s) onehot + s / size over the first `size` ids
    (Szegedy et al. 2016, section 7), whose least value is that distribution's entropy. Its gradient is softmax(logits) minus that
    distribution, computed from the logits in one pass."""
    return _cross_entropy(logits, target, smoothing, size)[0]


def _cross_entropy_gradient(smoothing, size, saved, g):
    logits, target, total = saved
    ids = jnp.arange(logits.shape[-1])
    goal = (1 - smoothing) * (ids == target[..., None]) + (smoothing / size * (ids < size) if smoothing else 0)
    p = jnp.exp(logits.astype(total.dtype) - total[..., None])
    return (g[..., None] * (p - goal)).astype(logits.dtype), None


cross_entropy.defvjp(_cross_entropy, _cross_entropy_gradient)
