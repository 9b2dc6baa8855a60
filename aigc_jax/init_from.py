"""Parameters of another run, or of a GPT-2 directory, as the first ones of a run (config.init_from)."""

import re
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from aigc_jax import gpt2, stored
from aigc_jax.checkpoint import Checkpoints
from aigc_jax.core import path_of
from aigc_jax.data import tokenizers
from aigc_jax.data.gpt2 import read_tokenizer
from aigc_jax.errors import UserError, listing, require
from aigc_jax.start import TOKENIZER
from aigc_jax.terminal import print_warning

EMBEDDING = "params/net/embed/embedding"  # of every network on tokens
TAKEN = re.compile("params/|extra/(?!carry/)")  # of a state; a carry belongs to the text that it was read from
SHOWN = 6  # names of each kind of difference


def stored_state(where: str, states) -> dict:
    """{path: array [1 or N, ...]} of the newest checkpoint of a run, or of a GPT-2 directory."""
    if gpt2.is_directory(where):
        rows = states.params["net"]["embed"]["embedding"].shape[1] if "embed" in states.params.get("net", {}) else 0
        return {f"params/net/{name}": value[None] for name, value in gpt2.read_params(where, rows).items()}
    require(stored.read(Path(where, "config.json")) is not None, f"config.init_from = {where!r} is no run: it has no config.json")
    found = Checkpoints(Path(where, "checkpoints")).newest(print_warning)
    require(found is not None, f"config.init_from = {where!r} has no good checkpoint")
    return found[0]


def check_tokenizer(where: str, tokenizer):
    """Raise a UserError where a run's tokens mean something else than the tokenizer's."""
    theirs = read_tokenizer(Path(where)) if gpt2.is_directory(where) else tokenizers.read(Path(where, TOKENIZER))
    require(theirs.pieces == tokenizer.pieces, f"config.init_from = {where!r} has another tokenizer ({theirs.kind}, {theirs.size:,} tokens) than the "
            f"data ({tokenizer.kind}, {tokenizer.size:,}): set config.data.tokenizer = 'file' and config.data.tokenizer_path = {where!r}")


def check_same(theirs: dict, ours: dict, where: str):
    """Raise a UserError that lists how two {path: array [N, ...]} differ: what is in one alone, or of another shape."""
    shape = lambda x: tuple(x.shape[1:])
    parts = {
        "{} not there": [name for name in ours if name not in theirs],
        "{} there alone": [name for name in theirs if name not in ours],
        "{}": [f"{name} is {shape(theirs[name])} there and {shape(x)} here" for name, x in ours.items()
               if name in theirs and shape(theirs[name]) != shape(x)],
    }  # fmt: skip
    different = [words.format(listing(names, SHOWN)) for words, names in parts.items() if names]
    require(not different, f"config.init_from = {where!r} has other parameters than this run: {'; '.join(different)}; config.init_match, a regular "
            "expression, picks those that both have, such as ^params/net/layer_0/")


def compile_match(config) -> re.Pattern:
    """config.init_match; a UserError where it is no regular expression."""
    try:
        return re.compile(config.init_match)
    except re.error as e:
        raise UserError(f"config.init_match = {config.init_match!r} is no regular expression: {e}") from None


def initialize(states, config, tokenizer=None, report: Callable[[str], None] = lambda line: None):
    """Stacked states with every leaf of `params` and `extra` whose path matches config.init_match taken from another run. Both must
    have the same ones, but for the run's own low-rank adaptation; tokens must be those of the tokenizer. What config.init_match leaves
    out is reported."""
    where, pattern = config.init_from, compile_match(config)
    found = stored_state(where, states)
    if tokenizer is not None and pattern.search(EMBEDDING):
        check_tokenizer(where, tokenizer)
    lost = sorted({name.split("/")[1] for name in found if name.startswith("params/")} - set(states.params))
    require(lost != ["lora"], f"config.init_from = {where!r} holds a low-rank adaptation, which config.lora.rank = 0 would lose: export it first")
    leaves = {path_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(states)}
    ours, theirs = ({name: x for name, x in tree.items() if TAKEN.match(name)} for tree in (leaves, found))
    new = {name for name in ours if name.startswith("params/lora/") and name not in theirs}  # an adaptation begins as no change
    is_taken = lambda name: bool(pattern.search(name)) and name not in new
    taken = {name: x for name, x in ours.items() if is_taken(name)}
    require(any(name.startswith("params/") for name in taken),
            f"config.init_match = {config.init_match!r} matches no parameter; there are {listing(n for n in ours if n.startswith('params/'))}")
    check_same({name: x for name, x in theirs.items() if is_taken(name)}, taken, where)
    left = [name for name in ours | theirs if not is_taken(name)]
    report(f"{len(taken)} arrays begin as in {where}" + (f", but not {listing(left, SHOWN)}" if left else ""))

    def take(path, value):
        if path_of(path) not in taken:
            return value
        other = found[path_of(path)]
        require(len(other) in (1, len(value)), f"config.init_from = {where!r} holds {len(other)} trials")
        return np.broadcast_to(other, value.shape).astype(value.dtype)

    return jax.tree_util.tree_map_with_path(take, states)
