"""Initialization with the parameters of another run or a GPT-2 directory
(config.init_from).
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from aigc_jax.core.method import TrainState
from aigc_jax.core.trees import format_key_path
from aigc_jax.data.tokenizers import huggingface
from aigc_jax.data.tokenizers.base import Tokenizer
from aigc_jax.training import gpt2_weights
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.utils import documents
from aigc_jax.utils.errors import UserError, join_names, require
from aigc_jax.utils.quantities import format_count
from aigc_jax.utils.terminal import print_warning

EMBEDDING = "params/net/embed/embedding"  # of every network on tokens
# Paths of a state that can be taken: not the carry, which belongs to the text that the
# other run has read.
TAKEN = re.compile("params/|extra/(?!carry/)")
SHOWN = 6  # number of names that an error message lists of each kind of difference


def read_source_leaves(
    source: str, states: TrainState
) -> dict[str, np.ndarray]:  # {path: [1 or N, ...]}
    """Return {path: array [1 or N, ...]} of a run's newest checkpoint, or of GPT-2."""
    if gpt2_weights.is_huggingface_directory(source):
        rows = (
            states.params["net"]["embed"]["embedding"].shape[1]
            if "embed" in states.params.get("net", {})
            else 0
        )
        return {
            f"params/net/{name}": value[None]
            for name, value in gpt2_weights.read_params(source, rows).items()
        }
    require(
        documents.read(Path(source, "config.json")) is not None,
        f"config.init_from = {source!r} is not a run directory: config.json is missing",
    )
    checkpoint = Checkpoints(Path(source, "checkpoints")).read_newest_valid(print_warning)
    if checkpoint is None:
        raise UserError(f"config.init_from = {source!r} has no good checkpoint")
    return checkpoint[0]


def check_same_tokenizer(source: str, tokenizer: Tokenizer) -> None:
    """Raise a UserError where the tokens of another run differ from a tokenizer's."""
    theirs = huggingface.read(source)
    require(
        theirs.pieces == tokenizer.pieces,
        f"config.init_from = {source!r} has another tokenizer ({theirs.kind}, "
        f"{theirs.size:,} tokens) than the "
        f"data ({tokenizer.kind}, {tokenizer.size:,}): set config.data.tokenizer = 'file' "
        f"and config.data.tokenizer_path = {source!r}",
    )


def check_same_leaves(
    theirs: Mapping[str, np.ndarray], ours: Mapping[str, Any], source: str
) -> None:
    """Raise a UserError that lists the differences of two trees: paths in only one of
    them, and different shapes.

    Args:
      theirs: {path: array [1 or N, ...]} of the other run.
      ours: {path: array [N, ...]} of this run; the leading axes may differ.
      source: config.init_from, for the error message.
    """
    shape = lambda x: tuple(x.shape[1:])
    parts = {
        "{} missing": [name for name in ours if name not in theirs],
        "{} unexpected": [name for name in theirs if name not in ours],
        "{}": [
            f"{name} has the shape {shape(theirs[name])} instead of {shape(x)}"
            for name, x in ours.items()
            if name in theirs and shape(theirs[name]) != shape(x)
        ],
    }
    different = [words.format(join_names(names, SHOWN)) for words, names in parts.items() if names]
    require(
        not different,
        f"config.init_from = {source!r} has other parameters than this run: "
        f"{'; '.join(different)}; select the shared parameters with "
        "the regular expression config.init_match, such as ^params/net/layer_0/",
    )


def compile_init_match(config: ConfigDict) -> re.Pattern[str]:
    """Compile config.init_match; raise a UserError if it is invalid."""
    try:
        return re.compile(config.init_match)
    except re.error as e:
        raise UserError(
            f"config.init_match = {config.init_match!r} is not a regular expression: {e}"
        ) from None


def warm_start_states(
    states: TrainState,
    config: ConfigDict,
    tokenizer: Tokenizer | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> TrainState:  # with leaves of config.init_from where config.init_match matches
    """Replace leaves of stacked states by those of config.init_from: every leaf of
    `params` and `extra`, except `extra/carry`, whose path matches config.init_match.

    Args:
      states: the stacked states [N, ...] of this run.
      config: the run's config.
      tokenizer: the tokenizer of this run's text; None: without text.
      report: called with the number of replaced leaves and the paths that
        config.init_match leaves out.

    Raises:
      UserError: the leaves of the two runs differ, except for this run's own low-rank
        adaptation; their tokens differ; only the other run has an adaptation; or the
        other run has several trials, but not N.
    """
    where, pattern = config.init_from, compile_init_match(config)
    stored = read_source_leaves(where, states)
    if tokenizer is not None and pattern.search(EMBEDDING):
        check_same_tokenizer(where, tokenizer)
    lost = sorted(
        {name.split("/")[1] for name in stored if name.startswith("params/")} - set(states.params)
    )
    require(
        lost != ["lora"],
        f"config.init_from = {where!r} holds a low-rank adaptation, which config.lora.rank "
        "= 0 would discard: export that run first",
    )
    taken, left = choose_paths(states, stored, config)
    report(
        f"{format_count(len(taken), 'array')} initialized from {where}"
        + (f"; not {join_names(left, SHOWN)}" if left else "")
    )

    def take(path, value):
        if format_key_path(path) not in taken:
            return value
        other = stored[format_key_path(path)]
        require(
            len(other) in (1, len(value)), f"config.init_from = {where!r} holds {len(other)} trials"
        )
        return np.broadcast_to(other, value.shape).astype(value.dtype)

    return jax.tree_util.tree_map_with_path(take, states)


def choose_paths(
    states: TrainState, stored: dict[str, np.ndarray], config: ConfigDict
) -> tuple[set[str], list[str]]:  # paths to take, paths left out
    """Return the paths of the leaves of `states` that config.init_match takes from
    `stored`, and the paths in either that it leaves out.

    Args:
      states: the stacked states [N, ...] of this run.
      stored: {path: array [1 or N, ...]} of the other run.
      config: the run's config.

    Raises:
      UserError: no parameter matches, or the chosen leaves differ in path or shape.
    """
    where, pattern = config.init_from, compile_init_match(config)
    leaves = {
        format_key_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(states)
    }
    ours, theirs = (
        {name: x for name, x in tree.items() if TAKEN.match(name)} for tree in (leaves, stored)
    )
    # A new low-rank adaptation begins as no change of the weights.
    new = {name for name in ours if name.startswith("params/lora/") and name not in theirs}
    is_taken = lambda name: bool(pattern.search(name)) and name not in new
    taken = {name: x for name, x in ours.items() if is_taken(name)}
    require(
        any(name.startswith("params/") for name in taken),
        f"config.init_match = {config.init_match!r} matches no parameter; the parameters are "
        f"{join_names(n for n in ours if n.startswith('params/'))}",
    )
    check_same_leaves({name: x for name, x in theirs.items() if is_taken(name)}, taken, where)
    return set(taken), [name for name in ours | theirs if not is_taken(name)]
