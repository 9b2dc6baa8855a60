"""Variational autoencoders (Kingma & Welling 2013): a bound of log p(x), maximized over
the network's q(z | x) and p(x | z) alike.

A step draws k latents for every example from q, takes one of BOUNDS on them and, if
config.penalty names one, adds hp.penalty times a divergence between the latents of the
whole batch and what they should be. The weight of the KL divergence is hp.beta times a
multiplier that may warm up (config.anneal).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from aigc_jax.core.gradients import mean_gradients
from aigc_jax.core.method import Method, TrainState
from aigc_jax.core.rng import EVALUATE, INIT, fold, noise
from aigc_jax.methods import optimizers, schedules
from aigc_jax.methods.latents import Model
from aigc_jax.methods.losses import latents as latent_losses
from aigc_jax.methods.losses import likelihoods
from aigc_jax.methods.networks import check_images, check_keys
from aigc_jax.methods.observation import held_out
from aigc_jax.utils.errors import choose, require

KEYS = (
    "network", "z", "likelihood", "binarize", "prior", "bound", "k", "penalty", "conditional",
    "nll_samples", "optimizer", "schedule.name", "schedule.warmup", "anneal.name", "anneal.period",
)  # fmt: skip

PRIORS = ("normal", "vamp")
PENALTIES = ("none", "tc", "mmd")
# Choices that need a single stochastic layer.
SINGLE = (
    ("prior", "vamp"),
    ("bound", "dreg"),
    ("bound", "free_bits"),
    ("penalty", "tc"),
    ("penalty", "mmd"),
)

# A latent is active whose posterior mean has at least this variance over the data
# (Burda et al. 2016, section 5.3).
ACTIVE = 0.01
# Values that the decoder writes at once while a likelihood is estimated: 8 MB, and for
# convolutions up to 100 times that.
CHUNK = 2**21


def examples(config) -> int:
    """Training examples a step."""
    return config.batch_size


# -- bounds to be maximized, as losses: (model, params, hp, x, c, draws, weight of the
# KL) -> ([], log p(x | z), KL)


def elbo(model, params, hp, x, c, draws, beta):
    """E log p(x | z) - beta KL(q(z | x) || p(z)) (Kingma & Welling 2013, eq. 3; beta:
    Higgins et al. 2017, eq. 4).
    """
    log_p, kl = model.elbo(params, hp, x, c, draws)
    return (beta * kl - log_p).mean(), log_p, kl


def free_bits(model, params, hp, x, c, draws, beta):
    """As the ELBO, but no latent's KL counts for less than hp.free_bits nats in the
    mean over the batch.
    """
    log_p = model.log_px(params, hp, x, c, draws[0].z).mean(0)
    kl = latent_losses.kl_normal(*draws[0][1:])
    return beta * latent_losses.free_bits(kl, hp["free_bits"]) - log_p.mean(), log_p, kl.sum(-1)


def iwae(model, params, hp, x, c, draws, beta):
    """log of the mean of k importance weights (Burda et al. 2016, eq. 8)."""
    log_p, gap = model.weights(params, hp, x, c, draws)
    return -latent_losses.iwae(log_p - beta * gap).mean(), log_p, gap


def dreg(model, params, hp, x, c, draws, beta):
    """The same value with the doubly reparameterized gradient for q: sum_k w_k^2 (d log
    w_k / d z_k) (d z_k / d q), w normalized, and none through the parameters of log q
    itself (Tucker et al. 2019, eq. 8). Both passes below are one: the compiler merges
    them.
    """
    (draw,) = draws

    def log_w(z):
        log_p, gap = model.weights(
            params,
            hp,
            x,
            c,
            [draw._replace(z=z, mean=still(draw.mean), log_var=still(draw.log_var))],
        )
        return log_p - beta * gap, log_p, gap

    still = jax.lax.stop_gradient
    weight = still(jax.nn.softmax(log_w(draw.z)[0], axis=0))
    value, log_p, gap = log_w(latent_losses.scale_gradient(draw.z, weight[..., None]))
    # The sum is 0, but its gradient is not.
    bound = latent_losses.iwae(still(value)) + jnp.sum(weight * (value - still(value)), axis=0)
    return -bound.mean(), log_p, gap


BOUNDS = {"elbo": elbo, "free_bits": free_bits, "iwae": iwae, "dreg": dreg}


def coupled(config, devices=False) -> str:
    """What makes the loss no mean over examples, or ''."""
    if config.penalty != "none":
        return f"config.penalty = {config.penalty!r}"
    return "config.bound = 'free_bits'" if config.bound == "free_bits" else ""


def examine(config, spec):
    """A UserError where the parts of the config do not suit one another or the data."""
    check_keys(config, KEYS)
    check_images(config, spec)
    for key, table in (("prior", PRIORS), ("bound", BOUNDS), ("penalty", PENALTIES)):
        choose(dict.fromkeys(table), config[key], f"config.{key}")
    choose(likelihoods.LIKELIHOODS, config.likelihood, "config.likelihood")
    require(config.z and min(config.z) > 0, f"config.z = {config.z} must hold sizes of at least 1")
    require(config.k > 0, f"config.k = {config.k} draws of the latents must be at least 1")
    require(config.nll_samples > 0, f"config.nll_samples = {config.nll_samples} must be at least 1")
    require(
        not config.conditional or spec.classes,
        "config.conditional = True needs labels, and config.data.name = "
        f"{config.data.name!r} has none",
    )
    for key, value in SINGLE:
        require(
            len(config.z) == 1 or config[key] != value,
            f"config.{key} = {value!r} is for one stochastic layer, and config.z = "
            f"{config.z} has {len(config.z)}",
        )
    vamp, plain = config.prior == "vamp", config.bound in ("elbo", "free_bits")
    require(
        not vamp or not config.conditional,
        "config.prior = 'vamp' knows no labels: config.conditional must be False",
    )
    require(
        not vamp or config.bound != "free_bits",
        "config.bound = 'free_bits' needs the KL of each latent, which config.prior = "
        "'vamp' has not",
    )
    require(
        vamp == bool(config.model.get("pseudo")),
        f"config.prior = {config.prior!r} with config.model.pseudo = {config.model.get('pseudo')}: "
        "'vamp' needs a number of pseudo-inputs, such as 500, and other priors have none",
    )
    require(
        plain or config.penalty == "none",
        f"config.penalty = {config.penalty!r} goes with an ELBO, not config.bound = "
        f"{config.bound!r}",
    )


def make(config, spec, gradients=mean_gradients) -> Method:
    """config.bound of the network config.model with latents of sizes config.z, from the
    data up (see KEYS for the rest).
    """
    examine(config, spec)
    model, bound = Model(config, spec), BOUNDS[config.bound]
    optimizer, anneal = optimizers.make(config), schedules.annealing(config)

    def penalty(key, index, draw):  # -> []
        if config.penalty == "tc":
            return latent_losses.total_correlation(draw.z[0], draw.mean, draw.log_var, spec.n_train)
        return latent_losses.mmd(draw.z[0], noise(key, index, config.z, model.dtype))

    def init(key, hp):
        c = model.onehot(jnp.zeros(1, jnp.int32))
        params = model.net.init(fold(key, INIT), jnp.zeros((1, *spec.shape), model.dtype), c)[
            "params"
        ]
        return TrainState(
            jnp.int32(0),
            key,
            dict(net=params),
            dict(net=optimizer(hp["lr"], hp, 0).init(params)),
            {},
            hp,
        )

    def step(state, batch):
        hp, beta = state.hp, state.hp["beta"] * anneal(state.step)

        def loss(params, batch, key):
            x, c = model.data(batch, fold(key, 0))
            draws = model.infer(params, x, c, fold(key, 1), batch["index"], config.k)
            value, log_p, kl = bound(model, params, hp, x, c, draws, beta)
            metrics = dict(reconstruction=-log_p.mean(), kl=kl.mean())
            if config.penalty != "none":
                metrics[config.penalty] = penalty(fold(key, 2), batch["index"], draws[0])
                value = value + hp["penalty"] * metrics[config.penalty]
            return value, dict(loss=value) | metrics

        grads, metrics = gradients(loss, state.params, batch, fold(state.key, state.step))
        params, opt = optimizers.apply(
            optimizer(hp["lr"], hp, state.step), grads["net"], state.opt["net"], state.params["net"]
        )
        return state.replace(
            step=state.step + 1, params=dict(net=params), opt=dict(net=opt)
        ), metrics

    def evaluate(state, batch):
        """The bounds with beta = 1, the same draws at every evaluation."""
        x, c = model.data(batch, held_out(config))
        draws = model.infer(state.params, x, c, fold(state.key, EVALUATE), batch["index"], config.k)
        log_p, kl = model.elbo(state.params, state.hp, x, c, draws)
        sums = dict(neg_elbo=kl - log_p, reconstruction=-log_p, kl=kl)
        if config.bound in ("iwae", "dreg"):
            log_p, gap = model.weights(state.params, state.hp, x, c, draws)
            sums["neg_iwae"] = -latent_losses.iwae(log_p - gap)
        for i, draw in enumerate(draws):
            mean = draw.mean if i == 0 else draw.mean[0]
            sums |= {f"mean_{i}": mean, f"square_{i}": mean**2}
        return {
            name: jnp.tensordot(batch["weight"].astype(v.dtype), v, 1) for name, v in sums.items()
        } | dict(weight=jnp.sum(batch["weight"]))

    def summarize(sums):
        mean = {name: np.float64(v) / np.float64(sums["weight"]) for name, v in sums.items()}
        out = {name: float(v) for name, v in mean.items() if np.ndim(v) == 0 and name != "weight"}
        if model.observation.bits:
            out["bits_per_dim"] = out["neg_elbo"] / model.observation.bits
        for i in range(len(config.z)):
            active = np.sum(mean[f"square_{i}"] - mean[f"mean_{i}"] ** 2 > ACTIVE)
            out["active_units" if len(config.z) == 1 else f"active_units_{i + 1}"] = float(active)
        return out

    def log_likelihood(state, key, batch):  # -> [B]
        """log p(x) by importance sampling: log of the mean of p(x, z) / q(z | x) over
        config.nll_samples draws (Burda et al. 2016, eq. 8), a few at a time.
        """
        most = max(1, CHUNK // (len(batch["index"]) * math.prod(spec.shape)))
        chunk = max(
            n for n in range(1, min(most, config.nll_samples) + 1) if config.nll_samples % n == 0
        )
        x, c = model.data(batch, held_out(config))

        def body(i, total):
            draws = model.infer(state.params, x, c, fold(key, i), batch["index"], chunk)
            log_p, gap = model.weights(state.params, state.hp, x, c, draws)
            return jnp.logaddexp(total, jax.nn.logsumexp(log_p - gap, axis=0))

        total = jax.lax.fori_loop(
            0, config.nll_samples // chunk, body, jnp.full(len(x), -jnp.inf, model.dtype)
        )
        return total - math.log(config.nll_samples)

    samplers, sheets = model.samplers()
    return Method(
        init, step, evaluate, summarize, samplers | dict(log_likelihood=log_likelihood), sheets
    )
