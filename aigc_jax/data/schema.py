"""The data sets and the keys of `data`. This module does not import jax."""

from aigc_jax.core.schema import REQUIRED, SEEDS, Key, choice_key

# data.name -> help; `data.DATASETS` has the function of each.
DATASETS = {
    "digits": "1,797 handwritten digits of 8x8 pixels (scikit-learn); always available",
    "mnist": "60,000 + 10,000 handwritten digits of 28x28 pixels (LeCun et al. 1998)",
    "fashion_mnist": "60,000 + 10,000 articles of clothing, 28x28 pixels (Xiao et al. 2017)",
    "binarized_mnist": "MNIST in black and white, a fixed sample (Larochelle & Murray 2011)",
    "stacked_mnist": "three MNIST digits as the colours of an image, 1,000 modes (Metz et al. "
    "2017)",
    "cifar10": "50,000 + 10,000 colour images of 32x32 pixels in ten classes (Krizhevsky 2009)",
    "npz": "your own arrays: images or points, and labels, in data.path",
    "folder": "your own images in the directory data.path, one sub-directory per class",
    "tfds": "any image data set that tensorflow-datasets has prepared",
    "hf": "your own images, texts or pairs that Hugging Face's library datasets saved to the "
    "directory data.path",
    "array_record": "your own images or texts in array_record files in the directory data.path",
    "ring": "points of eight Gaussians on a circle; always available",
    "grid": "points of 25 Gaussians on a grid; always available",
    "shakespeare": "Shakespeare's plays, 1,115,394 characters (Karpathy's char-rnn)",
    "tang_poems": "20,011 poems of the Tang dynasty, in Chinese",
    "journey_to_the_west": "a Chinese novel of the 16th century, in simplified characters",
    "nottingham": "about 1,000 folk tunes in ABC notation",
    "pydoc": "the topics of Python's help(), 0.4 million characters; always available",
    "stdlib": "the source of Python's standard library; always available",
    "text": "your own texts: a file, a directory or a glob in data.path",
    "tokens": "your own token files in the format of nanoGPT and llm.c, in data.path",
    "pairs": "your own pairs of texts: a source, a tab and a target per line of data.path",
    "multi30k": "29,000 captions of images in English, German and French (Elliott et al. 2016)",
    "docstrings": "docstrings and functions of Python's standard library; always available",
}
TOKENIZERS = {
    "bytes": "bytes of UTF-8; lossless",
    "characters": "characters of all splits",
    "words": "words and punctuation marks of the training split",
    "chinese_words": "Chinese words of the training split, as jieba finds them",
    "bpe": "byte-level byte-pair encoding (Sennrich et al. 2016); lossless",
    "file": "the tokenizer at data.tokenizer_path",
}
NORMAL_FORMS = {
    "": "unchanged",
    "NFC": "composed",
    "NFKC": "composed, with compatibility characters replaced",
    "NFD": "decomposed",
    "NFKD": "decomposed, with compatibility characters replaced",
}
LANGUAGES = ("en-de", "en-fr", "de-en", "de-fr", "fr-en", "fr-de")
LANGUAGE_NAMES = dict(de="German", en="English", fr="French")

DATA = (
    choice_key("data.name", "Data set.", DATASETS),
    Key(
        "data.path",
        str,
        "Your own data: a file (npz, pairs), a directory (folder, tokens, hf, "
        "array_record), a file, a directory or a glob (text), a directory or a name (tfds).",
        "",
    ),
    choice_key(
        "data.range",
        "npz: values of black and white.",
        {
            "auto": "inferred where unambiguous",
            "0..255": "0 and 255",
            "0..1": "0 and 1",
            "-1..1": "-1 and 1",
        },
        "auto",
    ),
    choice_key(
        "data.layout",
        "npz: axes of the images.",
        {
            "auto": "inferred where unambiguous",
            "NHWC": "example, row, column, channel",
            "NCHW": "example, channel, row, column",
        },
        "auto",
    ),
    Key(
        "data.input_column",
        str,
        "hf: column of the images, the texts or the sources of pairs; empty: detected where "
        "unambiguous.",
        "",
    ),
    Key(
        "data.target_column",
        str,
        "hf: column of the classes, or of the targets of pairs; empty: of images, detected where "
        "unambiguous.",
        "",
    ),
    Key(
        "data.size",
        int,
        "folder, hf, array_record: side of the images.",
        64,
        8,
        1024,
        unit="pixels",
    ),
    choice_key(
        "data.colour",
        "folder, hf, array_record: channels.",
        {"rgb": "three channels", "grey": "one channel"},
        "rgb",
    ),
    choice_key(
        "data.split",
        "folder, texts, and hf and array_record without splits of their own: percentages of the "
        "training, valid and test splits.",
        {
            "80/10/10": "three splits",
            "90/10": "the valid split also serves as test split",
            "80/20": "the valid split also serves as test split",
        },
        "80/10/10",
    ),
    choice_key(
        "data.order",
        "Order of the training examples.",
        {
            "trial": "shuffled by the seed of the trial",
            "shared": "shuffled by data.seed, identically for all trials",
            "stream": "as stored; recurrent networks carry their state from batch to batch",
        },
        "trial",
    ),
    Key("data.seed", int, "Seed of data.order = 'shared' and of evaluation.", 0, 0, SEEDS),
    choice_key("data.tokenizer", "texts: tokenizer.", TOKENIZERS, "bytes"),
    Key(
        "data.tokenizer_path",
        str,
        "texts: a tokenizer.json, a run directory or a GPT-2 directory, for data.tokenizer = "
        "'file'.",
        "",
    ),
    Key(
        "data.vocabulary",
        int,
        "texts: maximum number of tokens, including the two special tokens; 0: no maximum, but "
        "10,000 for words and bpe.",
        0,
        0,
        2**22,
        unit="tokens",
    ),
    Key("data.length", int, "texts: length of a window.", 64, 1, 2**20, unit="tokens"),
    choice_key("data.normalize", "texts: normal form of Unicode.", NORMAL_FORMS, ""),
    Key("data.lower", bool, "texts: convert to lower case.", False),
    choice_key(
        "data.control",
        "texts: control characters.",
        {"keep": "unchanged", "drop": "removed, except line breaks and tabs"},
        "keep",
    ),
    Key("data.stop_words", str, "texts: file of words to remove, one per line.", ""),
    choice_key(
        "data.script",
        "texts: Chinese script.",
        {"as_is": "unchanged", "simplified": "simplified characters"},
        "as_is",
    ),
    choice_key(
        "data.languages",
        "multi30k: source and target language.",
        {pair: " to ".join(LANGUAGE_NAMES[code] for code in pair.split("-")) for pair in LANGUAGES},
        "en-de",
    ),
    Key(
        "data.prefix_lm",
        bool,
        "pairs, hf: source, line break and target as one text, for config.method = 'lm'; only the "
        "target is learned (Liu et al. 2018).",
        False,
    ),
)

# {name without "data.": default}
DEFAULTS = {
    key.name.removeprefix("data."): "" if key.default is REQUIRED else key.default for key in DATA
}

# data.name -> the keys of `data` that the data set reads, besides name, order and seed.
CLEANING = ("script", "normalize", "lower", "control", "stop_words")
TOKENS = ("tokenizer", "tokenizer_path", "vocabulary", "length")
TEXT = ("split", *TOKENS, *CLEANING)
READ_BY: dict[str, tuple[str, ...]] = dict.fromkeys(DATASETS, ()) | {
    "npz": ("path", "range", "layout"),
    "folder": ("path", "size", "colour", "split"),
    "tfds": ("path",),
    "hf": ("path", "input_column", "target_column", "size", "colour", "prefix_lm", *TEXT),
    "array_record": ("path", "size", "colour", *TEXT),
    **dict.fromkeys(
        ("shakespeare", "tang_poems", "journey_to_the_west", "nottingham", "pydoc", "stdlib"), TEXT
    ),
    "text": ("path", *TEXT),
    "tokens": ("path", *TOKENS),
    "pairs": ("path", "prefix_lm", *TEXT),
    "multi30k": ("languages", "prefix_lm", *TOKENS, *CLEANING),
    "docstrings": ("prefix_lm", *TEXT),
}


def list_data_keys(name: str) -> tuple[str, ...]:  # without "data."
    """Return the keys of `data` that a data set reads."""
    return ("name", "order", "seed", *READ_BY[name])
