"""Losses of latent variables: divergences and bounds per example, and two-sample
losses, which take the entire batch and return a scalar.
"""

import math

import jax
import jax.numpy as jnp
from jax.nn import logsumexp

from aigc_jax.core.method import Array
from aigc_jax.methods.losses.likelihoods import gaussian_log_prob


def log_normal(z: Array, mean: Array, log_var: Array) -> Array:  # 3 x [..., Z] -> [...]
    """Return log N(z; mean, diag(exp(log_var))) in nats; the arguments broadcast."""
    return gaussian_log_prob(z, mean, log_var, None).sum(-1)


def kl_to_standard_normal(mean: Array, log_var: Array) -> Array:  # 2 x [..., Z] -> [..., Z]
    """Return KL(N(mean, exp(log_var)) || N(0, 1)) of each latent in nats:
    (mean^2 + exp(log_var) - 1 - log_var) / 2 (Kingma & Welling 2013, appendix B).
    """
    return 0.5 * (mean**2 + jnp.exp(log_var) - 1 - log_var)


def log_normal_mixture(
    z: Array, mean: Array, log_var: Array
) -> Array:  # [..., Z], 2 x [C, Z] -> [...]
    """Return the log of the mean of C normal densities: the VampPrior, whose components
    are the posteriors of pseudo-inputs (Tomczak & Welling 2018, eq. 9).

    Args:
      z: latents [..., Z].
      mean: means [C, Z] of the components.
      log_var: log variances [C, Z] of the components.
    """
    return logsumexp(log_normal(z[..., None, :], mean, log_var), axis=-1) - math.log(len(mean))


def kl_with_free_bits(kl: Array, min_nats: Array | float) -> Array:  # [B, Z] -> []
    """Return sum_j max(min_nats, batch mean of KL_j) (Kingma et al. 2016, eq. 15).

    KL below `min_nats` per latent is not rewarded. The loss takes the entire batch.
    """
    return jnp.maximum(kl.mean(0), min_nats).sum()


def iwae_bound(log_w: Array) -> Array:  # [K, B] -> [B]
    """Return the log of the mean of K importance weights w = p(x, z) / q(z | x).

    In expectation this is a lower bound of log p(x) that does not decrease with K, and
    the ELBO at K = 1 (Burda et al. 2016, eq. 8).
    """
    return logsumexp(log_w, axis=0) - math.log(len(log_w))


@jax.custom_vjp
def scale_gradient(x: Array, factor: Array) -> Array:  # 2 x [...] -> [...]
    """Return x; its gradient is multiplied by `factor`, which broadcasts to the shape
    of x and receives no gradient.
    """
    return x


scale_gradient.defvjp(
    lambda x, factor: (x, factor), lambda factor, g: (g * factor, jnp.zeros_like(factor))
)


def total_correlation(
    z: Array, mean: Array, log_var: Array, dataset_size: int
) -> Array:  # 3 x [B, Z] -> []
    """Return an estimate of KL(q(z) || prod_j q(z_j)) by minibatch-weighted sampling:
    q(z_i) ~ 1/(n B) sum_k q(z_i | x_k), likewise for each latent, where n is
    dataset_size (Chen et al. 2018, eq. 3 and 5).

    The estimate is biased, and takes the entire batch.

    Args:
      z: one draw [B, Z] from the posterior of each example.
      mean: means [B, Z] of the posteriors.
      log_var: log variances [B, Z] of the posteriors.
      dataset_size: number of examples in the data set.
    """
    each = gaussian_log_prob(z[:, None], mean[None], log_var[None], None)  # [B, B, Z]
    log_n = math.log(dataset_size) + math.log(len(z))
    joint = logsumexp(each.sum(-1), axis=1) - log_n
    product = (logsumexp(each, axis=1) - log_n).sum(-1)
    return (joint - product).mean()


def squared_mmd(a: Array, b: Array) -> Array:  # [B, Z], [B, Z] -> []
    """Return the unbiased squared maximum mean discrepancy of two samples (Gretton et
    al. 2012, eq. 3) for the kernel C / (C + |a - b|^2), C = 2 Z (Tolstikhin et al.
    2018, section 4).

    Its expectation is 0 for equal distributions. The loss takes the entire batch, of
    at least two examples: for one it is NaN.
    """
    c, n = 2 * a.shape[-1], len(a)

    def kernel(a, b):
        return c / (c + jnp.sum((a[:, None] - b[None]) ** 2, axis=-1))

    off = lambda k: (k.sum() - jnp.trace(k)) / (n * (n - 1))
    return off(kernel(a, a)) + off(kernel(b, b)) - 2 * kernel(a, b).mean()
