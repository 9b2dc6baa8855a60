"""The keys of `model`: the fields of each network that a config may set. Tests require
them to agree with the fields of the Linen modules. This module does not import jax.
"""

from typing import Any

from aigc_jax.core.schema import (
    BELOW_ONE,
    FLOAT,
    INTS,
    INTS2,
    REQUIRED,
    WIDTH,
    Key,
    choice_key,
    depth_key,
    kernel_key,
    width_key,
)

ACTIVATIONS = {
    "identity": "x",
    "relu": "max(0, x)",
    "leaky_relu": "max(0.2 x, x), as in DCGAN (Radford et al. 2016)",
    "leaky_relu_0.01": "max(0.01 x, x) (Maas et al. 2013)",
    "tanh": "tanh x",
    "gelu": "x Phi(x) by its tanh approximation, as in GPT-2 (Hendrycks & Gimpel 2016)",
}
NORMS = {
    "none": "no normalization",
    "batch": "over the batch and the positions (Ioffe & Szegedy 2015)",
    "layer": "over all values of an example (Ba et al. 2016)",
    "instance": "over the positions of an example, per channel (Ulyanov et al. 2016)",
}
CELLS = {
    "rnn": "tanh (Elman 1990)",
    "lstm": "input, forget and output gates (Hochreiter & Schmidhuber 1997; Gers et al. 2000)",
    "gru": "update and reset gates (Cho et al. 2014)",
}
POSITION_ENCODINGS = {
    "learned": "a vector per position, added to the embedding",
    "sinusoidal": "sines and cosines, added to the embedding (Vaswani et al. 2017, section 3.5)",
    "rotary": "rotations of queries and keys (Su et al. 2021)",
    "alibi": "a penalty of attention scores by distance (Press et al. 2022)",
    "none": "none",
}


def _dense(where: str) -> Key:
    return Key("dense", INTS, f"Widths of dense layers {where}.", (), 1, WIDTH)


def _gan(norm: str = "none") -> tuple[Key, ...]:
    """Return the keys that generators and discriminators of one network share."""
    return (
        choice_key("norm", "Normalization of the hidden layers.", NORMS, norm),
        Key("spectral", bool, "Spectral normalization of all kernels (Miyato et al. 2018).", False),
    )


def _activation(*default: str) -> Key:
    return choice_key("activation", "Activation of the hidden layers.", ACTIVATIONS, *default)


STD = Key(
    "std",
    float | None,
    "Standard deviation of the initial kernels; None: 1 / sqrt(inputs) (LeCun et al. 1998).",
    None,
    0,
    FLOAT,
)
MINIBATCH_STD = Key(
    "minibatch_std",
    bool,
    "Append the standard deviation over groups of examples as a feature (Karras et al. 2018, "
    "section 3).",
    False,
)
OUTPUT = choice_key("output", "Activation of the output: tanh for images in [-1, 1].", ACTIVATIONS)
WIDTHS = Key("widths", INTS, "Width of each hidden layer.", REQUIRED, 1, WIDTH)
CHANNELS = Key("channels", INTS, "Channels of each convolution; () uses model.width.", (), 1, WIDTH)
NUM_CHANNELS = Key("channels", INTS, "Channels of each convolution.", REQUIRED, 1, WIDTH)
WIDTH_AT_DATA = Key(
    "width",
    int | None,
    "Instead of `channels`: channels of the convolution next to the data, doubled with each "
    "halving of the image.",
    None,
    1,
    WIDTH,
)
MLP_DISCRIMINATOR = (
    WIDTHS,
    _activation(),
    *_gan(),
    MINIBATCH_STD,
    Key(
        "maxout_pieces",
        int,
        "Linear maps whose maximum is a hidden unit, before the activation (Goodfellow et al. "
        "2013); 1: no maxout.",
        1,
        1,
        1000,
    ),
    STD,
)
VAE = (
    Key(
        "widths",
        INTS2,
        "Hidden widths between the layers of latents, ((next to the data), ..., (at the top)); "
        "the decoder mirrors them.",
        REQUIRED,
        1,
        WIDTH,
    ),
    _activation(),
    Key("pseudo", int | None, "Learned inputs of config.prior = 'vamp'.", None, 1, WIDTH),
)
TRANSFORMER = (
    width_key("width", "Width of the residual stream; a multiple of `heads`."),
    Key("heads", int, "Attention heads of a layer.", REQUIRED, 1, 1024),
    depth_key("layers", "Number of layers; of encoder and decoder each."),
    Key(
        "kv_heads",
        int,
        "Heads of keys and values, each shared by heads / kv_heads queries (Ainslie et al. 2023); "
        "0: as many as `heads`.",
        0,
        0,
        1024,
    ),
    width_key(
        "hidden",
        "Width of the MLP; 0: 4 width, for swiglu 8/3 width rounded up to a multiple of 64.",
        0,
        low=0,
    ),
    choice_key(
        "activation",
        "Activation of the MLP.",
        {
            "relu": "max(0, x)",
            "gelu": "the tanh approximation, as in GPT-2 (Hendrycks & Gimpel 2016)",
            "swiglu": "a product of two linear maps, one through x sigmoid(x) (Shazeer 2020)",
        },
        "gelu",
    ),
    choice_key(
        "norm",
        "Normalization of the residual stream.",
        {
            "layer": "mean and variance over channels (Ba et al. 2016)",
            "rms": "root mean square over channels (Zhang & Sennrich 2019)",
        },
        "layer",
    ),
    choice_key(
        "norm_position",
        "Position of the normalization in a block f.",
        {"pre": "x + f(norm(x)), as in GPT-2", "post": "norm(x + f(x)) (Vaswani et al. 2017)"},
        "pre",
    ),
    choice_key(
        "position_encoding", "How positions enter the network.", POSITION_ENCODINGS, "learned"
    ),
    Key("qk_norm", bool, "RMS normalization of queries and keys (Henry et al. 2020).", False),
    Key("bias", bool, "Biases in linear maps and normalization.", True),
    Key("dropout", float, "Share of dropped values.", 0.0, 0, BELOW_ONE),
    Key("context", int, "Maximum number of positions.", REQUIRED, 1, 2**20, unit="tokens"),
    Key("tied", bool, "Compute logits with the transposed embedding (Press & Wolf 2017).", True),
    Key("scan", bool, "Run the layers in one scan, which compiles faster.", False),
    Key(
        "remat",
        bool,
        "Recompute a layer's values in the backward pass, which saves memory (Chen et al. 2016).",
        False,
    ),
    choice_key(
        "remat_policy",
        "Values that `remat` stores.",
        {"nothing": "the input of each layer only", "products": "the matrix products, too"},
        "nothing",
    ),
)
RECURRENT = (
    choice_key("cell", "Recurrent cell.", CELLS),
    width_key("width", "Units of a layer."),
    depth_key("layers", "Number of layers."),
    width_key("embedding", "Width of the token embedding."),
    Key(
        "dropout",
        float,
        "Share of dropped values between layers (Zaremba et al. 2014).",
        REQUIRED,
        0,
        BELOW_ONE,
    ),
    Key("tied", bool, "Compute logits with the transposed embedding (Press & Wolf 2017)."),
)
# (config.method, config.network or "") -> {part of `model`, or "": its keys}
MODEL: dict[tuple[str, str], dict[str, tuple[Key, ...]]] = {
    ("gan", "mlp"): dict(
        g=(WIDTHS, _activation(), OUTPUT, *_gan(), STD),
        d=MLP_DISCRIMINATOR,
    ),
    ("gan", "dcgan"): dict(
        g=(
            kernel_key("kernel"),
            _activation(),
            OUTPUT,
            CHANNELS,
            WIDTH_AT_DATA,
            Key(
                "base",
                int | None,
                "Channels of the smallest images; None: those of the first convolution.",
                None,
                1,
                WIDTH,
            ),
            _dense("between the noise and the first image"),
            Key("last_stride", int, "Stride of the last convolution.", 1, 1, 64),
            *_gan(),
        ),
        d=(
            kernel_key("kernel"),
            _activation(),
            CHANNELS,
            WIDTH_AT_DATA,
            _dense("before the logit"),
            *_gan(),
            MINIBATCH_STD,
        ),
    ),
    ("gan", "resnet"): dict(
        g=(
            width_key("width", "Channels of all blocks."),
            Key("ups", int, "Blocks; each doubles the image.", REQUIRED, 1, 12),
            OUTPUT,
            _activation("relu"),
            *_gan("batch"),
        ),
        d=(
            width_key("width", "Channels of all blocks."),
            Key("downs", int, "Blocks that halve the image.", REQUIRED, 1, 12),
            depth_key("flats", "Blocks of one resolution after them."),
            choice_key(
                "pool",
                "Pooling over positions before the logit.",
                {"sum": "sum (Miyato et al. 2018)", "mean": "mean (Gulrajani et al. 2017)"},
            ),
            _activation("relu"),
            *_gan(),
            MINIBATCH_STD,
        ),
    ),
    ("vae", "mlp"): {"": VAE},
    ("vae", "conv"): {"": (*VAE, kernel_key("kernel", 4), CHANNELS, WIDTH_AT_DATA)},
    ("vqvae", ""): {
        "": (
            width_key("size", "Dimension of a code."),
            NUM_CHANNELS,
            kernel_key("kernel"),
            depth_key("residual", "Residual blocks of the encoder, and of the decoder."),
            _activation(),
        )
    },
    ("lm", "transformer"): {"": TRANSFORMER},
    ("lm", "recurrent"): {"": RECURRENT},
    ("mlm", ""): {"": TRANSFORMER},
    ("seq2seq", ""): {"": TRANSFORMER},
    ("classifier", ""): {
        "": (
            NUM_CHANNELS,
            kernel_key("kernel"),
            width_key("size", "Width of the features before the logits."),
        )
    },
}
# (config.method, config.network or "") -> {key: value} that the loader writes into a
# config of the network that omits the key
_GAN = {"model.g.activation": "relu", "model.d.activation": "leaky_relu", "model.g.output": "tanh"}
DEFAULTS: dict[tuple[str, str], dict[str, Any]] = {
    ("gan", "mlp"): _GAN,
    ("gan", "dcgan"): _GAN
    | {
        "model.g.norm": "batch",
        "model.d.norm": "batch",
        "model.g.kernel": 5,
        "model.d.kernel": 5,
    },
    ("gan", "resnet"): {"model.g.output": "tanh", "model.d.pool": "sum"},
    ("vae", "mlp"): {"model.activation": "relu"},
    ("vae", "conv"): {"model.activation": "relu"},
    ("vqvae", ""): {"model.activation": "relu", "model.kernel": 4},
    ("lm", "recurrent"): {"model.dropout": 0.0, "model.tied": True},
}
