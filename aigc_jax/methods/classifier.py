"""A classifier of pictures: it generates nothing; metrics judge by its features and
probabilities what others generate (`training.feature_extractors`).
"""

import jax
import jax.numpy as jnp
import numpy as np

from aigc_jax.core.gradients import mean_gradients
from aigc_jax.core.method import Method, TrainState
from aigc_jax.core.rng import INIT, fold
from aigc_jax.core.trees import widen
from aigc_jax.methods import optimizers
from aigc_jax.methods.losses import tokens as token_losses
from aigc_jax.methods.networks import check_keys, network, working
from aigc_jax.models.classifier import Classifier
from aigc_jax.models.layers import largest
from aigc_jax.utils.errors import require

KEYS = ("optimizer", "schedule.name", "schedule.warmup")


def examples(config) -> int:
    """Training examples a step."""
    return config.batch_size


def net_of(config, spec) -> Classifier:
    """The network config.model for labelled pictures."""
    require(
        spec.kind == "image" and spec.classes > 1,
        f"config.data.name = {config.data.name!r} has no labelled pictures, and "
        "config.method = 'classifier' learns from them",
    )
    return network(Classifier, config.model, "model", config, classes=spec.classes)


def sight(config, spec):
    """(parameters, pictures [B, H, W, C] in [-1, 1]) -> (features [B, D], probabilities
    of the classes [B, K]).
    """
    net = net_of(config, spec)

    def look(params, x):
        logits, features = widen(net.apply({"params": params["net"]}, x))
        return features, jax.nn.softmax(logits)

    return look


def make(config, spec, gradients=mean_gradients) -> Method:
    """The least cross-entropy of the labels."""
    check_keys(config, KEYS)
    net, optimizer = net_of(config, spec), optimizers.make(config)

    def logits(params, x):
        return widen(net.apply({"params": params["net"]}, x)[0])

    def errors(params, batch):  # -> [B], [B, K]
        out = logits(params, batch["x"])
        return token_losses.cross_entropy(out, batch["label"], 0.0, spec.classes), out

    def init(key, hp):
        params = net.init(fold(key, INIT), jnp.zeros((1, *spec.shape), working(config)))["params"]
        return TrainState(
            jnp.int32(0),
            key,
            dict(net=params),
            dict(net=optimizer(hp["lr"], hp, 0).init(params)),
            {},
            hp,
        )

    def step(state, batch):
        hp = state.hp

        def loss(params, batch, key):
            value = errors(params, batch)[0].mean()
            return value, dict(loss=value)

        grads, metrics = gradients(loss, state.params, batch, fold(state.key, state.step))
        params, opt = optimizers.apply(
            optimizer(hp["lr"], hp, state.step), grads["net"], state.opt["net"], state.params["net"]
        )
        return state.replace(
            step=state.step + 1, params=dict(net=params), opt=dict(net=opt)
        ), metrics

    def evaluate(state, batch):
        nats, out = errors(state.params, batch)
        right = (out.argmax(-1) == batch["label"]).astype(nats.dtype)
        return {
            name: jnp.sum(batch["weight"] * v)
            for name, v in dict(loss=nats, accuracy=right, weight=jnp.ones_like(nats)).items()
        }

    def summarize(sums):
        return {
            name: float(np.float64(sums[name]) / np.float64(sums["weight"]))
            for name in ("loss", "accuracy")
        }

    def saliency(state, key, batch):  # -> [B, *shape]
        """The gradient of the likeliest class's logit by the pixels, its largest value
        1 or -1: light where ink makes the class likelier, dark where it makes it less
        likely (Simonyan et al. 2014, section 3, without their absolute value).
        """
        slope = jax.grad(lambda x: largest(logits(state.params, x)).sum())(batch["x"])
        return slope / jnp.maximum(jnp.abs(slope).max((1, 2, 3), keepdims=True), 1e-12)

    return Method(init, step, evaluate, summarize, dict(saliency=saliency), maps=("saliency",))
