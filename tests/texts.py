"""Texts and tokenizers that several tests use."""

import numpy as np
from ml_collections import ConfigDict

from aigc_jax import data
from aigc_jax.data import schema as data_schema
from aigc_jax.data import tokenizers

PLAY = (
    "ROMEO:\nBut soft, what light through yonder window breaks?\nIt is the east, and Juliet "
    "is the sun.\n\n" * 12
)
CHINESE = (
    "秦川雄帝宅，函谷壯皇居。綺殿千尋起，離宮百雉餘。\n"
    "連甍遙接漢，飛觀迥凌虛。雲日隱層闕，風煙出綺疎。\n"
)


def section(**more):
    return ConfigDict(data_schema.DEFAULTS | more)


def build(kind, *corpus, **more):
    return tokenizers.build(list(corpus) or [PLAY, CHINESE], section(tokenizer=kind, **more))


ALL = {
    "bytes": build("bytes"),
    "bpe": build("bpe", vocabulary=300),
    "characters": build("characters", PLAY, CHINESE),
    "some characters": build("characters", vocabulary=20),
    "words": build("words", vocabulary=12),
    "all words": build("words"),
}


def load(path, content=None, **more):
    """Load the data set `text` from a file or a folder, where `content` is written."""
    if isinstance(content, list):
        path.mkdir()
        for i, each in enumerate(content):
            (path / f"{i:04}.txt").write_bytes(each.encode())
    elif content is not None:
        path.write_bytes(content.encode())
    return data.load(section(name="text", path=str(path), **dict(length=8) | more))


def split_texts(ds):
    """{split: its text}, decoded from the tokens of its windows."""
    batches = {
        name: ds.take(ds.arrays, np.arange(start, start + count))
        for name, (start, count) in ds.splits.items()
    }
    return {
        name: ds.tokenizer.decode(np.append(batch["tokens"][:, :-1], batch["tokens"][-1, -1]))
        for name, batch in batches.items()
    }
