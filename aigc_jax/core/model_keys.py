"""The keys of `model`: the fields of each network that a config may set. Tests require
them to agree with the fields of the Linen modules. This module does not import jax.
"""

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

ACTIVATIONS = ("identity", "relu", "leaky_relu", "leaky_relu_0.01", "tanh", "gelu")
NORMS = ("none", "batch", "layer", "instance")


def _layers(*keys: Key) -> tuple[Key, ...]:
    """Return the keys of networks whose layers are listed individually, or follow from
    the width of the first or last layer.
    """
    return (Key("channels", INTS, (), 1, WIDTH), Key("width", int | None, None, 1, WIDTH), *keys)


def _dense() -> Key:
    return Key("dense", INTS, (), 1, WIDTH)


def _gan(norm: str = "none") -> tuple[Key, ...]:
    """Return the keys that generators and discriminators of one network share."""
    return choice_key("norm", NORMS, norm), Key("spectral", bool, False)


STD = Key("std", float | None, None, 0, FLOAT)  # of initial kernels; None: LeCun's
MINIBATCH_STD = Key("minibatch_std", bool, False)
OUTPUT, ACTIVATION = choice_key("output", ACTIVATIONS), choice_key("activation", ACTIVATIONS)
RELU = choice_key("activation", ACTIVATIONS, "relu")
WIDTHS = Key("widths", INTS, REQUIRED, 1, WIDTH)
VAE = (
    Key("widths", INTS2, REQUIRED, 1, WIDTH),
    ACTIVATION,
    Key("pseudo", int | None, None, 1, WIDTH),
)
TRANSFORMER = (
    width_key("width"),
    Key("heads", int, REQUIRED, 1, 1024),
    depth_key("layers"),
    # heads of keys and values, each shared by heads / kv_heads queries; 0: heads
    Key("kv_heads", int, 0, 0, 1024),
    # width of the MLP; 0: 4 width, for swiglu 8/3 width rounded up to a multiple of 64
    width_key("hidden", 0, low=0),
    choice_key("activation", ("relu", "gelu", "swiglu"), "gelu"),
    choice_key("norm", ("layer", "rms"), "layer"),
    # of the normalization: x + f(norm(x)), or norm(x + f(x))
    choice_key("norm_position", ("pre", "post"), "pre"),
    choice_key(
        "position_encoding", ("learned", "sinusoidal", "rotary", "alibi", "none"), "learned"
    ),
    Key("qk_norm", bool, False),
    Key("bias", bool, True),
    Key("dropout", float, 0.0, 0, BELOW_ONE),
    # maximum number of positions
    Key("context", int, REQUIRED, 1, 2**20),
    # compute logits with the transposed embedding
    Key("tied", bool, True),
    # run the blocks in one scan, which compiles faster
    Key("scan", bool, False),
    # recompute a block's intermediate values in the backward pass, except those named
    # by the next key
    Key("remat", bool, False),
    choice_key("remat_policy", ("nothing", "products"), "nothing"),
)
RECURRENT = (
    choice_key("cell", ("rnn", "lstm", "gru")),
    width_key("width"),
    depth_key("layers"),
    width_key("embedding"),
    Key("dropout", float, REQUIRED, 0, BELOW_ONE),
    Key("tied", bool),
)
# (config.method, config.network or "") -> {part of `model`, or "": its keys}
MODEL: dict[tuple[str, str], dict[str, tuple[Key, ...]]] = {
    ("gan", "mlp"): dict(
        g=(WIDTHS, ACTIVATION, OUTPUT, *_gan(), STD),
        d=(WIDTHS, ACTIVATION, *_gan(), MINIBATCH_STD, Key("maxout_pieces", int, 1, 1, 1000), STD),
    ),
    ("gan", "dcgan"): dict(
        g=(
            kernel_key("kernel"),
            ACTIVATION,
            OUTPUT,
            *_layers(Key("base", int | None, None, 1, WIDTH)),
            _dense(),
            Key("last_stride", int, 1, 1, 64),
            *_gan(),
        ),
        d=(kernel_key("kernel"), ACTIVATION, *_layers(), _dense(), *_gan(), MINIBATCH_STD),
    ),
    ("gan", "resnet"): dict(
        g=(width_key("width"), Key("ups", int, REQUIRED, 1, 12), OUTPUT, RELU, *_gan("batch")),
        d=(
            width_key("width"),
            Key("downs", int, REQUIRED, 1, 12),
            depth_key("flats"),
            choice_key("pool", ("sum", "mean")),
            RELU,
            *_gan(),
            MINIBATCH_STD,
        ),
    ),
    ("vae", "mlp"): {"": VAE},
    ("vae", "conv"): {"": (*VAE, kernel_key("kernel", 4), *_layers())},
    ("vqvae", ""): {
        "": (
            width_key("size"),
            Key("channels", INTS, REQUIRED, 1, WIDTH),
            kernel_key("kernel"),
            depth_key("residual"),
            ACTIVATION,
        )
    },
    ("lm", "transformer"): {"": TRANSFORMER},
    ("lm", "recurrent"): {"": RECURRENT},
    ("mlm", ""): {"": TRANSFORMER},
    ("seq2seq", ""): {"": TRANSFORMER},
    ("classifier", ""): {
        "": (Key("channels", INTS, REQUIRED, 1, WIDTH), kernel_key("kernel"), width_key("size"))
    },
}
