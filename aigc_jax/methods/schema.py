"""The methods, their keys, hyper-parameters and defaults. This module does not import
jax.

A method's defaults are values that the loader writes into a config that omits the key;
`Key.default` is instead the value that leaves the identity of a run unchanged.
"""

from typing import Any, NamedTuple

from aigc_jax.core.schema import (
    BELOW_ONE,
    DURATION,
    FLOAT,
    INTS,
    NAMES,
    REQUIRED,
    WIDTH,
    Key,
    choice_key,
    width_key,
)
from aigc_jax.methods.choices import (
    ANNEALING,
    AUGMENTATIONS,
    CONDITIONS,
    GAN_LOSSES,
    LIKELIHOODS,
    OBJECTIVES,
    PENALTIES,
    PRECISIONS,
    PRIORS,
    REGULARIZERS,
    SCHEDULES,
)
from aigc_jax.methods.hparams import OPTIMIZERS


class MethodSchema(NamedTuple):
    """What a config needs to know of a method."""

    help: str
    keys: tuple[Key, ...]  # of this method only
    hparams: tuple[str, ...]  # names, without "hp.", that all its configs read
    # {key: value} that the loader writes where a config omits a key that it reads
    defaults: dict[str, Any]
    samplers: dict[str, str]  # name -> help


_LABEL_SMOOTHING = Key(
    "label_smoothing",
    float,
    "Label smoothing of the cross-entropy (Szegedy et al. 2016).",
    REQUIRED,
    0,
    BELOW_ONE,
)
_IMAGES = (
    choice_key("likelihood", "Likelihood p(x | z) of an image.", LIKELIHOODS),
    choice_key(
        "binarize",
        "Black and white images from grey ones.",
        {
            "none": "images are used as they are",
            "dynamic": "grey levels are probabilities, sampled anew in each step (Salakhutdinov & "
            "Murray 2008)",
        },
    ),
)
_TRAINING = {"schedule.name": "constant", "schedule.warmup": "0 steps", "hp.beta1": 0.9}
_ADAM = _TRAINING | {"optimizer": "adam", "hp.beta2": 0.999}
_ADAMW = _TRAINING | {
    "optimizer": "adamw",
    "schedule.name": "cosine",
    "schedule.warmup": "100 steps",
    "hp.lr": 1e-3,
    "hp.beta2": 0.99,
    "hp.weight_decay": 0.1,
    "hp.grad_clip": 1.0,
    "best_metric": "valid/loss",
    "run.samples": 4,
}
METHODS = {
    "gan": MethodSchema(
        "generative adversarial network (Goodfellow et al. 2014)",
        (
            choice_key(
                "network",
                "Networks of generator and discriminator.",
                {
                    "mlp": "dense layers",
                    "dcgan": "strided convolutions (Radford et al. 2016)",
                    "resnet": "residual blocks (Gulrajani et al. 2017; Miyato et al. 2018)",
                },
            ),
            width_key("latent_dim", "Dimension of the generator's noise."),
            choice_key("loss", "Losses of both networks.", GAN_LOSSES),
            Key(
                "critic_steps",
                int,
                "Discriminator updates per generator update.",
                REQUIRED,
                1,
                1000,
            ),
            Key(
                "gan.regularizers",
                NAMES,
                "Penalties and bounds; the weight of each is the hyper-parameter of its name.",
                (),
                allowed=REGULARIZERS,
            ),
            choice_key("gan.condition", "How class labels enter the networks.", CONDITIONS, "none"),
            Key(
                "gan.pack",
                int,
                "Examples that the discriminator scores jointly (Lin et al. 2018).",
                1,
                1,
                1000,
            ),
            Key(
                "gan.unroll",
                int,
                "Unrolled discriminator updates in the generator's loss (Metz et al. 2017).",
                0,
                0,
                1000,
            ),
            Key(
                "gan.augment",
                NAMES,
                "Augmentations of the discriminator's inputs (Zhao et al. 2020).",
                (),
                allowed=AUGMENTATIONS,
            ),
        ),
        ("lr_g", "lr_d", "ema_decay", "smoothing"),
        _ADAM
        | {
            "loss": "non_saturating",
            "critic_steps": 1,
            "latent_dim": 100,
            "hp.lr_g": 2e-4,
            "hp.lr_d": 2e-4,
            "hp.beta1": 0.5,
            "hp.ema_decay": 0.999,
        },
        {
            "prior": "samples of the averaged generator; by class where it is conditional",
            "interpolation": "spherical interpolations of two noise vectors, per row",
        },
    ),
    "vae": MethodSchema(
        "variational autoencoder (Kingma & Welling 2013)",
        (
            choice_key(
                "network",
                "Networks of encoder and decoder.",
                {"mlp": "dense layers", "conv": "strided convolutions and dense layers"},
            ),
            Key(
                "latent_dims",
                INTS,
                "Dimensions of the latents, the layer next to the data first.",
                REQUIRED,
                1,
                WIDTH,
            ),
            *_IMAGES,
            choice_key("prior", "Prior of the latents.", PRIORS),
            choice_key("objective", "Objective that is minimized.", OBJECTIVES),
            Key(
                "num_importance_samples",
                int,
                "Samples of the latents per example in the objective.",
                REQUIRED,
                1,
                10**5,
            ),
            choice_key("penalty", "Penalty of a batch's latents, of weight hp.penalty.", PENALTIES),
            Key("conditional", bool, "Condition encoder and decoder on class labels."),
            Key(
                "nll_samples",
                int,
                "Samples of the latents per example in the metric nll.",
                REQUIRED,
                1,
                10**6,
            ),
            choice_key("anneal.name", "Schedule of the factor of hp.beta.", ANNEALING),
            Key("anneal.period", DURATION, "Period of the schedule of hp.beta."),
        ),
        ("lr", "beta"),
        _ADAM
        | {
            "likelihood": "bernoulli",
            "binarize": "none",
            "prior": "normal",
            "objective": "elbo",
            "num_importance_samples": 1,
            "penalty": "none",
            "conditional": False,
            "nll_samples": 5000,
            "anneal.name": "constant",
            "anneal.period": "0 steps",
            "hp.lr": 1e-3,
            "best_metric": "valid/neg_elbo",
        },
        {
            "prior": "decoded samples of the prior",
            "reconstruction": "held-out images, each above its reconstruction",
            "interpolation": "spherical interpolations of two draws from the prior, per row",
            "traversal": "one latent from -3 to 3 per row, the others fixed",
            "latents": "latents of held-out images by class (.npy: draw, mean, log variance)",
            "manifold": "two latents: a grid of them (Kingma & Welling 2013, figure 4)",
            "log_likelihood": "log likelihood of held-out images, beside training images",
        },
    ),
    "vqvae": MethodSchema(
        "vector-quantized autoencoder (van den Oord et al. 2017)",
        (Key("codebook_size", int, "Number of codes.", REQUIRED, 2, 2**20), *_IMAGES),
        ("lr", "commitment", "ema_decay", "restart"),
        _ADAM
        | {
            "likelihood": "gaussian",
            "binarize": "none",
            "hp.sigma": 0.3,
            "hp.lr": 1e-3,
            "hp.ema_decay": 0.99,
            "best_metric": "valid/reconstruction",
        },
        {"reconstruction": "held-out images, each above its reconstruction"},
    ),
    "lm": MethodSchema(
        "autoregressive language model: GPT (Radford et al. 2019), RNN, LSTM, GRU",
        (
            choice_key(
                "network",
                "Network.",
                {
                    "transformer": "causal Transformer (Vaswani et al. 2017)",
                    "recurrent": "RNN, LSTM or GRU",
                },
            ),
            _LABEL_SMOOTHING,
            Key(
                "loss_chunk",
                int,
                "Transformers: positions whose logits are in memory at once; 0: all.",
                0,
                0,
                2**20,
                unit="tokens",
            ),
            Key(
                "lora.rank",
                int,
                "Rank of a low-rank adaptation, which alone is trained (Hu et al. 2022); 0: all "
                "parameters are trained.",
                0,
                0,
                WIDTH,
            ),
            Key("lora.alpha", float, "The adaptation is scaled by alpha / rank.", 16.0, 0, FLOAT),
            Key("lora.match", str, "Adapted kernels: a regular expression on paths.", "."),
        ),
        ("lr",),
        _ADAMW
        | {
            "network": "transformer",
            "label_smoothing": 0.0,
        },
        {
            "text": "a text after the prompt, or from the beginning",
            "answer": "pairs: targets of held-out sources by config.num_beams or sampling",
            "reference": "pairs: held-out targets",
        },
    ),
    "seq2seq": MethodSchema(
        "encoder-decoder Transformer for pairs of texts (Vaswani et al. 2017)",
        (
            _LABEL_SMOOTHING,
            Key("num_beams", int, "Beams of the search for a target.", REQUIRED, 1, 1000),
            Key(
                "length_penalty",
                float,
                "Exponent of the length by which log probabilities of beams are divided (Wu et "
                "al. 2016, eq. 14).",
                REQUIRED,
                -100,
                100,
            ),
        ),
        ("lr",),
        _ADAMW
        | {
            "label_smoothing": 0.1,
            "num_beams": 4,
            "length_penalty": 0.6,
            "schedule.warmup": "400 steps",
            "hp.beta2": 0.98,
            "hp.weight_decay": 0.01,
            "run.samples": 10,
        },
        {
            "answer": "targets of held-out sources, or of the prompt, by beam search",
            "greedy": "the same, by the most probable token each",
            "reference": "held-out targets",
        },
    ),
    "mlm": MethodSchema(
        "masked language model (Devlin et al. 2019)",
        (Key("mask_rate", float, "Share of tokens that are masked.", REQUIRED, 1e-6, BELOW_ONE),),
        ("lr",),
        _ADAMW | {"mask_rate": 0.15},
        {"filled": "held-out windows whose masked tokens are the most likely ones"},
    ),
    "classifier": MethodSchema(
        "convolutional classifier, the feature extractor of metrics",
        (),
        ("lr",),
        _ADAM | {"schedule.name": "cosine", "hp.lr": 2e-3, "run.sample_every": "never"},
        {"saliency": "gradient of the most likely logit by pixel (Simonyan et al. 2014)"},
    ),
}

# Keys that configs of all methods have, read by `methods`.
KEYS = (
    choice_key("method", "Method.", {name: method.help for name, method in METHODS.items()}),
    choice_key("precision", "Number format of the networks.", PRECISIONS, "float32"),
    choice_key(
        "optimizer_dtype",
        "Number format of the optimiser's state.",
        {"": "that of the parameters", "bfloat16": "16 bits"},
        "",
    ),
    Key(
        "grad_accumulation_steps",
        int,
        "Parts of a batch whose gradients are computed one after another, in the memory of one.",
        1,
        1,
        2**20,
    ),
    Key(
        "frozen",
        str,
        "Parameters that are not trained: a regular expression on paths within a network, such as "
        "Dense_0/kernel.",
        "",
    ),
    choice_key(
        "optimizer",
        "Update rule.",
        {name: optimizer.help for name, optimizer in OPTIMIZERS.items()},
    ),
    choice_key(
        "schedule.name", "Factor of the learning rate during the run, after the warm-up.", SCHEDULES
    ),
    Key("schedule.warmup", DURATION, "Linear rise of the learning rate from 0."),
)


# static key -> its value (or each entry of a tuple) -> the hyper-parameters, without
# "hp.", that this choice reads
READ_BY: dict[str, dict[str, tuple[str, ...]]] = {
    "method": {name: method.hparams for name, method in METHODS.items()},
    "optimizer": {name: optimizer.hparams for name, optimizer in OPTIMIZERS.items()},
    "gan.condition": {"auxiliary": ("auxiliary",)},
    "gan.regularizers": {name: (name,) for name in REGULARIZERS},
    "likelihood": {"gaussian": ("sigma",)},
    "objective": {"free_bits": ("free_bits",)},
    "penalty": {"tc": ("penalty",), "mmd": ("penalty",)},
}


def applicable_hparams(leaves: dict[str, Any]) -> tuple[str, ...]:  # names without "hp."
    """Return the names, without "hp.", of the hyper-parameters that the choices of a
    config with these leaves read, in the order of READ_BY.
    """
    names: dict[str, None] = {}
    for key, table in READ_BY.items():
        value = leaves.get(key, ())
        for choice in value if isinstance(value, tuple) else (value,):
            names |= dict.fromkeys(table.get(choice, ()))
    return tuple(names)
