"""Losses of latent variables: divergences, bounds, and two-sample losses, which take
the batch and return [].
"""

import math

import jax
import jax.numpy as jnp
from jax.nn import logsumexp

from aigc_jax.methods.losses.likelihoods import gaussian

# -- latent variables


def log_normal(z, mean, log_var):  # 3 x [..., Z] -> [...]
    """log N(z; mean, diag(exp(log_var)))."""
    return gaussian(z, mean, log_var, None).sum(-1)


def kl_normal(mean, log_var):  # 2 x [..., Z] -> [..., Z]
    """KL(N(mean, exp(log_var)) || N(0, 1)) of each latent: (mean^2 + exp(log_var) - 1 -
    log_var) / 2 (Kingma & Welling 2013, appendix B).
    """
    return 0.5 * (mean**2 + jnp.exp(log_var) - 1 - log_var)


def log_mixture(z, mean, log_var):  # [..., Z], 2 x [C, Z] -> [...]
    """log of the mean of C normal densities: the VampPrior, whose parts are posteriors
    of pseudo-inputs (Tomczak & Welling 2018, eq. 9).
    """
    return logsumexp(log_normal(z[..., None, :], mean, log_var), axis=-1) - math.log(len(mean))


def free_bits(kl, least):  # [B, Z] -> []
    """sum_j max(least, mean of KL_j over the batch): no gain in pressing a latent below
    `least` nats (Kingma et al. 2016, eq. 15). Takes the whole batch.
    """
    return jnp.maximum(kl.mean(0), least).sum()


def iwae(log_w):  # [K, B] -> [B]
    """log of the mean of K importance weights w = p(x, z) / q(z | x): a lower bound of
    log p(x) that does not fall with K, the ELBO at K = 1 (Burda et al. 2016, eq. 8).
    """
    return logsumexp(log_w, axis=0) - math.log(len(log_w))


@jax.custom_vjp
def scale_gradient(x, factor):
    """x, whose gradient is multiplied by `factor`."""
    return x


scale_gradient.defvjp(
    lambda x, factor: (x, factor), lambda factor, g: (g * factor, jnp.zeros_like(factor))
)


def total_correlation(z, mean, log_var, n):  # 3 x [B, Z] -> []
    """KL(q(z) || prod_j q(z_j)), estimated on the batch: q(z_i) ~ 1/(n B) sum_k q(z_i |
    x_k), and for each latent alike (Chen et al. 2018, eq. 3 and 5, minibatch-weighted
    sampling; n examples in the data set). A biased estimate. Takes the whole batch.
    """
    each = gaussian(z[:, None], mean[None], log_var[None], None)  # [B, B, Z]
    log_n = math.log(n) + math.log(len(z))
    joint = logsumexp(each.sum(-1), axis=1) - log_n
    product = (logsumexp(each, axis=1) - log_n).sum(-1)
    return (joint - product).mean()


def mmd(a, b):  # [B, Z], [B, Z] -> []
    """The squared maximum mean discrepancy of two samples (Gretton et al. 2012, eq. 3,
    unbiased) for the kernel C / (C + |a - b|^2), C = 2 Z (Tolstikhin et al. 2018,
    section 4): 0 in the mean where both have one distribution. Takes the whole batch.
    """
    c, n = 2 * a.shape[-1], len(a)

    def kernel(a, b):
        return c / (c + jnp.sum((a[:, None] - b[None]) ** 2, axis=-1))

    off = lambda k: (k.sum() - jnp.trace(k)) / (n * (n - 1))
    return off(kernel(a, a)) + off(kernel(b, b)) - 2 * kernel(a, b).mean()
