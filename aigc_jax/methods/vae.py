"""Variational autoencoders (Kingma & Welling 2013): a lower bound of log p(x) is
maximized with respect to q(z | x) and p(x | z).

A step samples k latents from q for every example and evaluates one of OBJECTIVES on
them. If config.penalty is not "none", hp.penalty times a divergence of the latents of
the entire batch is added: "tc" from the product of their marginals, "mmd" from N(0, 1),
whatever the prior. The weight of the KL divergence is hp.beta times the schedule
config.anneal.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from aigc_jax.core.gradients import mean_gradients
from aigc_jax.core.method import Array, Method, PyTree, Sampler, TrainState
from aigc_jax.core.rng import EVALUATE, INIT, fold_in, normal_by_index
from aigc_jax.data.dataset import Spec
from aigc_jax.methods import optimizers, schedules
from aigc_jax.methods.latents import Draw, Model
from aigc_jax.methods.losses import latents as latent_losses
from aigc_jax.methods.losses import likelihoods
from aigc_jax.methods.networks import check_images_or_points
from aigc_jax.methods.observation import eval_binarization_key
from aigc_jax.methods.single_network import make_initial_state, make_single_network_step
from aigc_jax.utils.errors import choose, require

PRIORS = ("normal", "vamp")
PENALTIES = ("none", "tc", "mmd")
# Options that require a single stochastic layer.
SINGLE = (
    ("prior", "vamp"),
    ("objective", "dreg"),
    ("objective", "free_bits"),
    ("penalty", "tc"),
    ("penalty", "mmd"),
)

# A latent is active if its posterior mean has a variance over the data above this
# threshold (Burda et al. 2016, section 5.3).
ACTIVE = 0.01
# Number of decoder outputs at a time when a likelihood is estimated: 8 MB, and up to
# 100 times that for convolutions.
CHUNK = 2**21


def examples_per_step(config: ConfigDict) -> int:
    """Return the number of training examples per step."""
    return config.batch_size


# -- Bounds as losses: (model, params, hp, x, c, draws, weight of the KL) -> (the
# negative bound [], log p(x | z), KL), as `elbo` describes; the last two are metrics


def elbo(
    model: Model,
    params: PyTree,
    hp: dict[str, Array],
    x: Array,
    c: Array | None,
    draws: list[Draw],
    beta: Array,
) -> tuple[Array, Array, Array]:  # -> loss [], log p(x | z) [B], KL [B]
    """Return the negative of E log p(x | z) - beta KL(q(z | x) || p(z)) (Kingma &
    Welling 2013, eq. 3; beta: Higgins et al. 2017, eq. 4).

    Args:
      model: the distributions.
      params: all parameters.
      hp: hyper-parameters.
      x: images [B, *shape], as `Model.images_and_labels` returns.
      c: one-hot labels [B, classes], None if unconditional.
      draws: K draws per example of every layer, as `Model.sample_posterior` returns.
      beta: weight [] of the KL divergence.

    Returns:
      The mean over the batch [], and in nats log p(x | z) and KL, [B] each; in `iwae`
      and `dreg` these two are [K, B], and the KL is log q(z | x) - log p(z).
    """
    log_p, kl = model.elbo_terms(params, hp, x, c, draws)
    return (beta * kl - log_p).mean(), log_p, kl


def free_bits(
    model: Model,
    params: PyTree,
    hp: dict[str, Array],
    x: Array,
    c: Array | None,
    draws: list[Draw],
    beta: Array,
) -> tuple[Array, Array, Array]:  # -> loss [], log p(x | z) [B], KL [B]
    """Return the negative ELBO in which the batch mean of the KL of each latent counts
    as at least hp.free_bits nats: beta sum_j max(hp.free_bits, KL_j) - E log p(x | z)
    (Kingma et al. 2016, eq. 15).
    """
    log_p = model.log_p_x_given_z(params, hp, x, c, draws[0].z).mean(0)
    kl = latent_losses.kl_to_standard_normal(*draws[0][1:])
    return (
        beta * latent_losses.kl_with_free_bits(kl, hp["free_bits"]) - log_p.mean(),
        log_p,
        kl.sum(-1),
    )


def iwae(
    model: Model,
    params: PyTree,
    hp: dict[str, Array],
    x: Array,
    c: Array | None,
    draws: list[Draw],
    beta: Array,
) -> tuple[Array, Array, Array]:  # -> loss [], log p(x | z) [K, B], log q - log p [K, B]
    """Return the negative log of the mean of K importance weights p(x | z) (p(z) /
    q(z | x))^beta; at beta = 1 the bound of Burda et al. 2016, eq. 8.
    """
    log_p, log_ratio = model.importance_terms(params, hp, x, c, draws)
    return -latent_losses.iwae_bound(log_p - beta * log_ratio).mean(), log_p, log_ratio


def dreg(
    model: Model,
    params: PyTree,
    hp: dict[str, Array],
    x: Array,
    c: Array | None,
    draws: list[Draw],
    beta: Array,
) -> tuple[Array, Array, Array]:  # -> loss [], log p(x | z) [K, B], log q - log p [K, B]
    """Return the loss `iwae` with the doubly reparameterized gradient for q: sum_k
    w_k^2 (d log w_k / d z_k) (d z_k / d q), w normalized, without a gradient through
    the parameters of log q (Tucker et al. 2019, eq. 8).

    The compiler merges the two forward passes below.
    """
    (draw,) = draws

    def log_w(z):
        log_p, log_ratio = model.importance_terms(
            params,
            hp,
            x,
            c,
            [draw._replace(z=z, mean=still(draw.mean), log_var=still(draw.log_var))],
        )
        return log_p - beta * log_ratio, log_p, log_ratio

    still = jax.lax.stop_gradient
    weight = still(jax.nn.softmax(log_w(draw.z)[0], axis=0))
    value, log_p, log_ratio = log_w(latent_losses.scale_gradient(draw.z, weight[..., None]))
    # The value of the sum is 0, its gradient is not.
    bound = latent_losses.iwae_bound(still(value)) + jnp.sum(
        weight * (value - still(value)), axis=0
    )
    return -bound.mean(), log_p, log_ratio


OBJECTIVES = {"elbo": elbo, "free_bits": free_bits, "iwae": iwae, "dreg": dreg}


def find_batch_coupling(config: ConfigDict, across_devices: bool = False) -> str:  # reason or ''
    """Return the config entry that makes the loss differ from a mean over examples, or
    ''; the same for parts on several devices.
    """
    if config.penalty != "none":
        return f"config.penalty = {config.penalty!r}"
    return "config.objective = 'free_bits'" if config.objective == "free_bits" else ""


def validate(config: ConfigDict, spec: Spec) -> None:
    """Raise a UserError where the config is inconsistent or unsuitable for the data."""
    check_images_or_points(config, spec)
    for key, table in (("prior", PRIORS), ("objective", OBJECTIVES), ("penalty", PENALTIES)):
        choose(dict.fromkeys(table), config[key], f"config.{key}")
    choose(likelihoods.LIKELIHOODS, config.likelihood, "config.likelihood")
    require(
        config.latent_dims and min(config.latent_dims) > 0,
        f"config.latent_dims = {config.latent_dims} must contain sizes of at least 1",
    )
    require(
        config.num_importance_samples > 0,
        f"config.num_importance_samples = {config.num_importance_samples} must be at least 1",
    )
    require(config.nll_samples > 0, f"config.nll_samples = {config.nll_samples} must be at least 1")
    require(
        not config.conditional or spec.classes,
        "config.conditional = True needs labels, and config.data.name = "
        f"{config.data.name!r} has none",
    )
    for key, value in SINGLE:
        require(
            len(config.latent_dims) == 1 or config[key] != value,
            f"config.{key} = {value!r} is for one stochastic layer, and config.latent_dims = "
            f"{config.latent_dims} has {len(config.latent_dims)}",
        )
    validate_prior(config)
    require(
        config.penalty != "mmd" or config.batch_size > 1,
        f"config.penalty = 'mmd' needs config.batch_size = {config.batch_size} to be at least 2",
    )
    require(
        config.objective in ("elbo", "free_bits") or config.penalty == "none",
        f"config.penalty = {config.penalty!r} goes with an ELBO, not config.objective = "
        f"{config.objective!r}",
    )


def validate_prior(config: ConfigDict) -> None:
    """Raise a UserError where config.prior does not suit the other keys."""
    vamp = config.prior == "vamp"
    require(
        not vamp or not config.conditional,
        "config.prior = 'vamp' does not support labels: config.conditional must be False",
    )
    require(
        not vamp or config.objective != "free_bits",
        "config.objective = 'free_bits' needs the KL of each latent, which config.prior = "
        "'vamp' does not have",
    )
    require(
        not vamp or config.penalty != "mmd",
        "config.penalty = 'mmd' compares the latents with N(0, 1), which is not the prior of "
        "config.prior = 'vamp'",
    )
    require(
        vamp == bool(config.model.get("pseudo")),
        f"config.prior = {config.prior!r} with config.model.pseudo = {config.model.get('pseudo')}: "
        "'vamp' needs a number of pseudo-inputs, such as 500, and other priors have none",
    )


def make(config: ConfigDict, spec: Spec, gradients: Callable = mean_gradients) -> Method:
    """Return the VAE of the network config.model with the bound config.objective.
    config.latent_dims are the sizes of the latent layers, from the data up.
    """
    validate(config, spec)
    return VAE(config, spec).as_method(gradients)


class VAE:
    """The functions of a `core.method.Method`, as pure methods."""

    def __init__(self, config: ConfigDict, spec: Spec) -> None:
        self.config, self.spec = config, spec
        self.model, self.objective = Model(config, spec), OBJECTIVES[config.objective]
        self.optimizer = optimizers.make_optimizer(config)
        self.anneal = schedules.make_annealing(config)

    def as_method(self, gradients: Callable) -> Method:
        """Return the autoencoder as a `core.method.Method`."""
        step = make_single_network_step(self.make_loss, self.optimizer, gradients)
        likelihood = Sampler(self.log_likelihood, conditioned=True, figure="log_likelihood")
        samplers = self.model.make_samplers() | dict(log_likelihood=likelihood)
        return Method(self.init, step, self.evaluate, self.summarize, samplers)

    def init(self, key: Array, hp: dict[str, Array]) -> TrainState:
        """Return the state before the first step."""
        c = self.model.one_hot_labels(jnp.zeros(1, jnp.int32))
        one = jnp.zeros((1, *self.spec.shape), self.model.dtype)
        params = self.model.net.init(fold_in(key, INIT), one, c)["params"]
        return make_initial_state(key, hp, dict(net=params), self.optimizer)

    def latent_penalty(self, key: Array, index: Array, draw: Draw) -> Array:  # -> []
        """Return the divergence config.penalty of the latents of the entire batch.

        Args:
          key: key of the draws from N(0, 1) that "mmd" compares with; unused by "tc".
          index: numbers [B] of the examples, which key these draws.
          draw: the latents, whose first draw is used.
        """
        config, model = self.config, self.model
        if config.penalty == "tc":
            return latent_losses.total_correlation(
                draw.z[0], draw.mean, draw.log_var, self.spec.n_train
            )
        return latent_losses.squared_mmd(
            draw.z[0], normal_by_index(key, index, config.latent_dims, model.dtype)
        )

    def make_loss(
        self, state: TrainState, batch: dict[str, Array], key: Array
    ) -> tuple[Callable, dict[str, Array]]:  # -> loss(params, batch, key), its batch
        """Return the loss, the negative bound plus the penalty, and its batch."""
        config, model = self.config, self.model
        hp, beta = state.hp, state.hp["beta"] * self.anneal(state.step)

        def loss(params, batch, key):
            x, c = model.images_and_labels(batch, fold_in(key, 0))
            draws = model.sample_posterior(
                params, x, c, fold_in(key, 1), batch["index"], config.num_importance_samples
            )
            value, log_p, kl = self.objective(model, params, hp, x, c, draws, beta)
            metrics = dict(reconstruction=-log_p.mean(), kl=kl.mean())
            if config.penalty != "none":
                metrics[config.penalty] = self.latent_penalty(
                    fold_in(key, 2), batch["index"], draws[0]
                )
                value = value + hp["penalty"] * metrics[config.penalty]
            return value, dict(loss=value) | metrics

        return loss, batch

    def evaluate(
        self, state: TrainState, batch: dict[str, Array]
    ) -> dict[str, Array]:  # -> weighted sums {name: [] or [Z]}
        """Return sums over the batch of the bounds with beta = 1 and of the moments of
        the posterior means. The noise is the same at every evaluation.
        """
        config, model, params = self.config, self.model, state.params
        x, c = model.images_and_labels(batch, eval_binarization_key(config))
        key = fold_in(state.key, EVALUATE)
        draws = model.sample_posterior(
            params, x, c, key, batch["index"], config.num_importance_samples
        )
        log_p, kl = model.elbo_terms(params, state.hp, x, c, draws)
        sums = dict(neg_elbo=kl - log_p, reconstruction=-log_p, kl=kl)
        if config.objective in ("iwae", "dreg"):
            log_p, log_ratio = model.importance_terms(params, state.hp, x, c, draws)
            sums["neg_iwae"] = -latent_losses.iwae_bound(log_p - log_ratio)
        for i, draw in enumerate(draws):
            mean = draw.mean if i == 0 else draw.mean[0]
            sums |= {f"mean_{i}": mean, f"square_{i}": mean**2}
        return {
            name: jnp.tensordot(batch["weight"].astype(v.dtype), v, 1) for name, v in sums.items()
        } | dict(weight=jnp.sum(batch["weight"]))

    def summarize(self, sums: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the means over examples, and the number of active latents."""
        mean = {name: np.float64(v) / np.float64(sums["weight"]) for name, v in sums.items()}
        out = {name: float(v) for name, v in mean.items() if np.ndim(v) == 0 and name != "weight"}
        if self.model.observation.bits:
            out["bits_per_dim"] = out["neg_elbo"] / self.model.observation.bits
        layers = len(self.config.latent_dims)
        for i in range(layers):
            active = np.sum(mean[f"square_{i}"] - mean[f"mean_{i}"] ** 2 > ACTIVE)
            out["active_units" if layers == 1 else f"active_units_{i + 1}"] = float(active)
        return out

    def log_likelihood(
        self, state: TrainState, key: Array, batch: dict[str, Array]
    ) -> Array:  # -> [B], nats
        """Estimate log p(x) by importance sampling: the log of the mean of p(x, z) /
        q(z | x) over config.nll_samples draws (Burda et al. 2016, eq. 8), in chunks.
        """
        model, count = self.model, self.config.nll_samples
        most = max(1, CHUNK // (len(batch["index"]) * math.prod(self.spec.shape)))
        chunk = max(n for n in range(1, min(most, count) + 1) if count % n == 0)
        x, c = model.images_and_labels(batch, eval_binarization_key(self.config))

        def body(i, total):
            draws = model.sample_posterior(
                state.params, x, c, fold_in(key, i), batch["index"], chunk
            )
            log_p, log_ratio = model.importance_terms(state.params, state.hp, x, c, draws)
            return jnp.logaddexp(total, jax.nn.logsumexp(log_p - log_ratio, axis=0))

        none = jnp.full(len(x), -jnp.inf, model.dtype)
        return jax.lax.fori_loop(0, count // chunk, body, none) - math.log(count)
