"""A classifier of images. It generates nothing; metrics use its features and class
probabilities to evaluate generative models (`training.feature_extractors`).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from aigc_jax.core.gradients import mean_gradients
from aigc_jax.core.method import Array, Method, PyTree, Sampler, TrainState
from aigc_jax.core.rng import INIT, fold_in
from aigc_jax.core.trees import upcast_to_float32
from aigc_jax.data.dataset import Spec
from aigc_jax.methods import optimizers
from aigc_jax.methods.losses import tokens as token_losses
from aigc_jax.methods.networks import loss_dtype, make_network, weighted_means
from aigc_jax.methods.single_network import make_initial_state, make_single_network_step
from aigc_jax.models.classifier import Classifier
from aigc_jax.models.layers import first_max
from aigc_jax.utils.errors import require


def examples_per_step(config: ConfigDict) -> int:
    """Return the number of training examples per step."""
    return config.batch_size


def make_classifier(config: ConfigDict, spec: Spec) -> Classifier:
    """Return the network config.model for labelled images; raise a UserError if the
    data are not images of at least two classes.
    """
    require(
        spec.kind == "image" and spec.classes > 1,
        f"config.data.name = {config.data.name!r} has no labelled images, which "
        "config.method = 'classifier' needs",
    )
    return make_network(Classifier, config.model, "model", config, classes=spec.classes)


def make_feature_extractor(
    config: ConfigDict, spec: Spec
) -> Callable[[PyTree, Array], tuple[Array, Array]]:  # -> features [B, D], probabilities [B, K]
    """Return (parameters, images [B, H, W, C] in [-1, 1]) -> (features [B, D], class
    probabilities [B, K]).
    """
    net = make_classifier(config, spec)

    def extract(params, x):
        logits, features = upcast_to_float32(net.apply({"params": params["net"]}, x))
        return features, jax.nn.softmax(logits)

    return extract


def make(config: ConfigDict, spec: Spec, gradients: Callable = mean_gradients) -> Method:
    """Return the method that minimizes the cross-entropy of the labels."""
    return ClassifierMethod(config, spec).as_method(gradients)


class ClassifierMethod:
    """The functions of a `core.method.Method`, as pure methods."""

    def __init__(self, config: ConfigDict, spec: Spec) -> None:
        self.config, self.spec = config, spec
        self.net, self.optimizer = make_classifier(config, spec), optimizers.make_optimizer(config)

    def as_method(self, gradients: Callable) -> Method:
        """Return the classifier as a `core.method.Method`."""
        make_loss = lambda state, batch, key: (self.loss, batch)
        step = make_single_network_step(make_loss, self.optimizer, gradients)
        samplers = dict(saliency=Sampler(self.saliency, conditioned=True, is_image=False))
        return Method(self.init, step, self.evaluate, self.summarize, samplers)

    def init(self, key: Array, hp: dict[str, Array]) -> TrainState:
        """Return the state before the first step."""
        one = jnp.zeros((1, *self.spec.shape), loss_dtype(self.config))
        params = self.net.init(fold_in(key, INIT), one)["params"]
        return make_initial_state(key, hp, dict(net=params), self.optimizer)

    def logits(self, params: PyTree, x: Array) -> Array:  # [B, H, W, C] -> [B, K]
        """Return the logits of the classes."""
        return upcast_to_float32(self.net.apply({"params": params["net"]}, x)[0])

    def nats_and_logits(
        self, params: PyTree, batch: dict[str, Array]
    ) -> tuple[Array, Array]:  # -> cross-entropy [B], logits [B, K]
        """Return the cross-entropy of the labels in nats, and the logits."""
        out = self.logits(params, batch["x"])
        return token_losses.cross_entropy(out, batch["label"], 0.0, self.spec.classes), out

    def loss(
        self, params: PyTree, batch: dict[str, Array], key: Array
    ) -> tuple[Array, dict[str, Array]]:  # -> [], {name: []}
        """Return the mean cross-entropy, and the metrics."""
        value = self.nats_and_logits(params, batch)[0].mean()
        return value, dict(loss=value)

    def evaluate(self, state: TrainState, batch: dict[str, Array]) -> dict[str, Array]:  # -> sums
        """Return sums over the batch of cross-entropies and correct predictions."""
        nats, out = self.nats_and_logits(state.params, batch)
        right = (out.argmax(-1) == batch["label"]).astype(nats.dtype)
        return {
            name: jnp.sum(batch["weight"] * v)
            for name, v in dict(loss=nats, accuracy=right, weight=jnp.ones_like(nats)).items()
        }

    def summarize(self, sums: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the means over examples."""
        means = weighted_means(sums)
        return {name: means[name] for name in ("loss", "accuracy")}

    def saliency(
        self, state: TrainState, key: Array, batch: dict[str, Array]
    ) -> Array:  # -> [B, *shape], signed, in [-1, 1]
        """Return the gradient of the most likely class's logit with respect to the
        pixels, scaled to a largest absolute value of 1 (Simonyan et al. 2014,
        section 3, without their absolute value).

        It is light where ink makes the class more likely, and dark where ink makes the
        class less likely.
        """
        slope = jax.grad(lambda x: first_max(self.logits(state.params, x)).sum())(batch["x"])
        return slope / jnp.maximum(jnp.abs(slope).max((1, 2, 3), keepdims=True), 1e-12)
