"""VQ-VAE (van den Oord et al. 2017): an autoencoder whose latents are entries e_i of a
codebook, one for every place.

The decoder sees the code next to each of the encoder's outputs; its gradient is handed
to the encoder as if nothing had happened between them ("straight through"). The
codebook has no gradient: each code moves to the average of the outputs that chose it
(ibid., appendix A.1), and one that hardly any choose is set to an output of the batch,
drawn at random (after Dhariwal et al. 2020, section 3.3). The codes of a picture have
no prior here: there is nothing to draw new pictures from.
"""

import jax
import jax.numpy as jnp
import numpy as np

from aigc_jax.core.gradients import mean_gradients
from aigc_jax.core.method import Method, TrainState
from aigc_jax.core.rng import INIT, fold
from aigc_jax.core.trees import widen
from aigc_jax.methods import optimizers
from aigc_jax.methods.losses import likelihoods
from aigc_jax.methods.networks import check_keys, network, working
from aigc_jax.methods.observation import held_out, observe
from aigc_jax.models import vqvae
from aigc_jax.utils.errors import choose, require

KEYS = ("codes", "likelihood", "binarize", "optimizer", "schedule.name", "schedule.warmup")


def examples(config) -> int:
    """Training examples a step."""
    return config.batch_size


def nearest(z, codebook):  # [..., D], [N, D] -> [...]
    """The index of the code with the least Euclidean distance (eq. 1)."""
    return jnp.argmin(jnp.sum(codebook**2, -1) - 2 * z @ codebook.T, axis=-1)


def straight_through(z, code):  # 2 x [..., D] -> [..., D]
    """The code, with the gradient of z."""
    return z + jax.lax.stop_gradient(code - z)


def perplexity(counts):  # [N] -> []
    """exp of the entropy of the codes' shares: how many are in use, N if all alike."""
    share = counts / jnp.maximum(counts.sum(), 1)
    return jnp.exp(
        -jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1)), 0))
    )


def moved(book, z, chosen, decay, restart, key):
    """The codebook {codes [N, D], counts [N], sums [N, D]} after a batch: counts and
    sums are moving averages of how many outputs z [M, D] chose each code and of their
    sum, a code is sum / count. Where the count is below `restart` times its fair share
    M / N, the code is set to a random output of the batch, as if it had its share.
    """
    n = len(book["counts"])
    which = jax.nn.one_hot(chosen, n, dtype=z.dtype)
    counts = decay * book["counts"] + (1 - decay) * which.sum(0)
    sums = decay * book["sums"] + (1 - decay) * which.T @ z
    share = len(z) / n
    dead = counts < restart * share
    drawn = z[jax.random.randint(key, (n,), 0, len(z))]
    counts = jnp.where(dead, share, counts)
    sums = jnp.where(dead[:, None], share * drawn, sums)
    return dict(codes=sums / counts[:, None], counts=counts, sums=sums)


def make(config, spec, gradients=mean_gradients) -> Method:
    """The autoencoder config.model with a codebook of config.codes codes."""
    check_keys(config, KEYS)
    choose(likelihoods.LIKELIHOODS, config.likelihood, "config.likelihood")
    require(config.codes > 1, f"config.codes = {config.codes} must be at least 2")
    seen, dtype, optimizer = observe(config, spec), working(config), optimizers.make(config)
    net = network(vqvae.VQVAE, config.model, "model", config, shape=spec.shape, scale=seen.scale)

    def call(params, what, *args):
        return widen(net.apply({"params": params["net"]}, *args, method=what))

    def encode(params, book, x):
        """The encoder's outputs z [B, h, w, D], the numbers of their codes [B, h, w],
        the codes [B, h, w, D].
        """
        z = call(params, "encode", x)
        chosen = nearest(z, book["codes"])
        return z, chosen, book["codes"][chosen]

    def errors(params, hp, x, z, codes):
        """-log p(x | codes) and |z - codes|^2 (the third term of eq. 3), summed over
        places, [B] each.
        """
        reconstruction = -seen.log_prob(hp, x, *call(params, "decode", straight_through(z, codes)))
        return reconstruction, jnp.sum((z - jax.lax.stop_gradient(codes)) ** 2, axis=(1, 2, 3))

    def init(key, hp):
        params = net.init(fold(key, INIT), jnp.zeros((1, *spec.shape), dtype))["params"]
        # Codes without a count: the first batch sets all of them.
        none = jnp.zeros((config.codes, net.size), dtype)
        book = dict(codes=none, counts=none[:, 0], sums=none)
        return TrainState(
            jnp.int32(0),
            key,
            dict(net=params),
            dict(net=optimizer(hp["lr"], hp, 0).init(params)),
            dict(book=book),
            hp,
        )

    def step(state, batch):
        hp, key = state.hp, fold(state.key, state.step)

        def loss(params, batch, key):
            x = seen.target(batch, fold(key, 0))
            z, chosen, codes = encode(params, state.extra["book"], x)
            reconstruction, distance = errors(params, hp, x, z, codes)
            value = (reconstruction + hp["commitment"] * distance).mean()
            return value, dict(
                loss=value,
                reconstruction=reconstruction.mean(),
                commitment=distance.mean(),
                z=z,
                chosen=chosen,
            )

        grads, metrics = gradients(loss, state.params, batch, key, rows=("z", "chosen"))
        z, chosen = metrics.pop("z"), metrics.pop("chosen")
        book = moved(
            state.extra["book"],
            z.reshape(-1, net.size),
            chosen.ravel(),
            hp["ema_decay"],
            hp["restart"],
            fold(key, 1),
        )
        used = jax.nn.one_hot(chosen.ravel(), config.codes, dtype=dtype).sum(0)
        params, opt = optimizers.apply(
            optimizer(hp["lr"], hp, state.step), grads["net"], state.opt["net"], state.params["net"]
        )
        state = state.replace(
            step=state.step + 1, params=dict(net=params), opt=dict(net=opt), extra=dict(book=book)
        )
        return state, metrics | dict(perplexity=perplexity(used))

    def evaluate(state, batch):
        x = seen.target(batch, held_out(config))
        z, chosen, codes = encode(state.params, state.extra["book"], x)
        values = dict(
            zip(
                ("reconstruction", "commitment"),
                errors(state.params, state.hp, x, z, codes),
                strict=True,
            )
        )
        values["squared_error"] = jnp.sum(
            (seen.picture(call(state.params, "decode", codes)[0]) - seen.show(x)) ** 2,
            axis=(1, 2, 3),
        )
        values["used"] = jax.nn.one_hot(chosen.reshape(len(x), -1), config.codes, dtype=dtype).sum(
            1
        )
        return {
            name: jnp.tensordot(batch["weight"].astype(dtype), v, 1) for name, v in values.items()
        } | dict(weight=jnp.sum(batch["weight"]))

    def summarize(sums):
        out = {
            k: float(np.float64(v) / np.float64(sums["weight"]))
            for k, v in sums.items()
            if k not in ("used", "weight")
        }
        return out | dict(perplexity=float(perplexity(np.float64(sums["used"]))))

    def reconstruction(state, key, batch):  # -> [B, 2, *shape]
        """Pictures and what their codes make of them."""
        x = seen.target(batch, held_out(config))
        codes = encode(state.params, state.extra["book"], x)[2]
        return jnp.stack(
            [seen.show(x), seen.picture(call(state.params, "decode", codes)[0])], axis=1
        )

    return Method(init, step, evaluate, summarize, dict(reconstruction=reconstruction))
