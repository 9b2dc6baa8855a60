"""Images as observations of a likelihood p(x | z), for all methods with a decoder.

Bernoulli likelihoods take images in [0, 1], all others images in [-1, 1]. With
config.binarize = "dynamic" grey levels are probabilities, from which binary images are
resampled at each step (Salakhutdinov & Murray 2008).
"""

import math

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from aigc_jax.core.method import Array
from aigc_jax.core.rng import EVALUATE, fold_in
from aigc_jax.data.dataset import Spec
from aigc_jax.methods.losses import likelihoods
from aigc_jax.methods.networks import loss_dtype
from aigc_jax.utils.errors import choose, require

BINARIZE = ("none", "dynamic")


def eval_binarization_key(config: ConfigDict) -> Array:  # -> []
    """Return the key that binarizes images for evaluation: a function of
    config.data.seed alone, constant and equal for all trials.
    """
    return fold_in(jax.random.key(config.data.seed), EVALUATE)


def validate(config: ConfigDict, spec: Spec) -> None:
    """Raise a UserError where config.likelihood, config.binarize and the data are
    incompatible.
    """
    likelihood = choose(likelihoods.LIKELIHOODS, config.likelihood, "config.likelihood")
    choose(dict.fromkeys(BINARIZE), config.binarize, "config.binarize")
    name = f"config.data.name = {config.data.name!r}"
    if config.likelihood == "bernoulli":
        require(
            spec.levels == 1 or (config.binarize == "dynamic" and spec.kind == "image"),
            f"config.likelihood = 'bernoulli' is for black and white images, not {name}; "
            "config.binarize = 'dynamic' samples such images from grey ones, and "
            "config.data.name = 'binarized_mnist' contains them",
        )
        return
    require(
        config.binarize == "none",
        f"config.binarize = {config.binarize!r} goes with config.likelihood = "
        f"'bernoulli', not {config.likelihood!r}",
    )
    require(
        spec.levels or not likelihood.discrete,
        f"config.likelihood = {config.likelihood!r} is for integer grey levels, "
        f"and {name} has none",
    )


class Observation:
    """The likelihood p(x | z) of a config: its targets, log probabilities and images.

    Attributes:
      spec: the properties of the data.
      dtype: dtype of targets and log probabilities.
      likelihood: the entry of `methods.losses.likelihoods.LIKELIHOODS`.
      scale: as in `methods.losses.likelihoods.Likelihood`.
      is_binary: whether targets are in {0, 1}, and locations are logits.
      is_drawn: whether targets are resampled from grey levels at each step.
      bits: number of dimensions times log 2 where bits per dimension are defined, else
        0.
    """

    def __init__(self, config: ConfigDict, spec: Spec) -> None:
        validate(config, spec)
        self.likelihood = likelihoods.LIKELIHOODS[config.likelihood]
        self.spec, self.dtype, self.scale = spec, loss_dtype(config), self.likelihood.scale
        self.is_binary = config.likelihood == "bernoulli"
        self.is_drawn = config.binarize == "dynamic"
        has_bits = self.likelihood.discrete and not self.is_binary
        self.bits = math.log(2) * math.prod(spec.shape) if has_bits else 0.0

    def make_targets(
        self, batch: dict[str, Array], binarization_key: Array
    ) -> Array:  # -> [B, *shape]
        """Return the images whose likelihood is evaluated: in {0, 1} for Bernoulli
        likelihoods, else as in the data.

        Args:
          batch: "x" [B, *shape] in the range of the data; if config.binarize is
            "dynamic", also "index" [B], which keys the binarization.
          binarization_key: key of the binarization; unused without.
        """
        x = ((batch["x"] + 1) / 2 if self.is_binary else batch["x"]).astype(self.dtype)
        if not self.is_drawn:
            return x
        uniform = jax.vmap(
            lambda i: jax.random.uniform(fold_in(binarization_key, i), self.spec.shape, self.dtype)
        )(batch["index"])
        return (uniform < x).astype(self.dtype)

    def log_prob(
        self, hp: dict[str, Array], x: Array, location: Array, log_scale: Array | None
    ) -> Array:  # [B, *shape], [..., B, *shape] -> [..., B]
        """Return log p(x | z) in nats for the outputs of a decoder.

        Args:
          hp: hyper-parameters, with the standard deviation "sigma" if the attribute
            `scale` is "hp".
          x: images, as `make_targets` returns.
          location: the decoder's location [..., B, *shape].
          log_scale: the decoder's log scale, [] or like the location; None if the
            attribute `scale` is "none" or "hp".
        """
        log_scale = 2 * jnp.log(hp["sigma"]) if self.scale == "hp" else log_scale
        axes = tuple(range(-len(self.spec.shape), 0))
        return self.likelihood.log_prob(x, location, log_scale, self.spec.levels).sum(axes)

    def squash_to_target_range(self, x: Array) -> Array:  # [...] -> [...]
        """Map real numbers to the range of targets: (0, 1) for Bernoulli likelihoods,
        else (-1, 1) for images and R for points.
        """
        if self.is_binary:
            return jax.nn.sigmoid(x)
        return jnp.tanh(x) if self.spec.kind == "image" else x

    def expected_image(self, location: Array) -> Array:  # [..., *shape] -> [..., *shape]
        """Return the expected image for a location, on the scale of the data: in
        [-1, 1] for Bernoulli likelihoods, while other locations are not bounded.
        """
        return self.to_data_range(self.likelihood.mean(location))

    def to_data_range(self, x: Array) -> Array:  # [...] -> [...]
        """Return targets x on the scale of the data: 2 x - 1 for Bernoulli likelihoods,
        else x.
        """
        return 2 * x - 1 if self.is_binary else x
