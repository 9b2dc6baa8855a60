"""Text from a run, written on after prompts as people read it."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

import jax
import numpy as np

from aigc_jax.core.rng import SAMPLE, fold
from aigc_jax.methods.decoding import PLAIN, Choice, Writer, check_range
from aigc_jax.utils.errors import UserError, argument, require
from aigc_jax.utils.files import BYTE_ORDER_MARK, read_text
from aigc_jax.utils.terminal import print_text

# Texts that are written at once, however many there are: it bounds the memory.
ROWS = 64
MOST = 10_000_000  # tokens of a text, texts of a call
SEEDS = 2**32


def check_numbers(num: int, seed: int) -> None:
    """Raise a UserError where the number of tokens or the seed is out of range."""
    check_range("tokens", num, 1, MOST, whole=True)
    check_range("seed", seed, 0, SEEDS - 1, whole=True)


def encode_prompts(run, prompts: list[str]) -> list[np.ndarray]:
    """The tokens of each prompt, after the token with which a text begins where the
    prompt is empty or a source that is to be answered.
    """
    out = []
    for prompt in prompts:
        ids = run.tokenizer.encode(prompt)
        begins = run.config.data.joined or not len(ids)
        require(
            not begins or run.spec.start >= 0,
            f"an empty {argument('prompt')} needs a token that begins a text, and the tokenizer "
            "has none",
        )
        out.append(np.append(np.array([run.spec.start] if begins else [], np.int32), ids))
    return out


def continuations(
    run, prompts: list[str], num: int, choice: Choice, seed: int = 0, report=None, first: int = 0
) -> Iterator[list[str]]:
    """What a run's network writes after each prompt, at most `num` tokens: yields a
    piece of text per prompt, again and again; each is what its whole characters allow.
    The same seed gives the same text. An empty prompt is the beginning of a text; a
    source that is to be answered stands at one. first: the number of the first prompt
    among all, which keys its noise.
    """
    check_numbers(num, seed)
    tokenizer, language = run.tokenizer, run.programs.method.language
    net, encoded = language.net, encode_prompts(run, prompts)
    longest, limit = max(map(len, encoded)), net.capacity
    writer = Writer(language.apply, net, run.state.params, choice, run.ends)
    if limit and longest > limit - writer.chunk and report:
        report(
            f"the prompt has {longest:,} tokens and the network {limit:,} positions: only "
            f"the last {limit - writer.chunk:,} count"
        )
    streams = [tokenizer.stream() for _ in prompts]
    for tokens in writer.write(encoded, num, fold(run.state.key, SAMPLE, seed), first):
        yield [stream(row[row >= 0]) for stream, row in zip(streams, tokens, strict=True)]


def asked(run, prompt: str) -> str:
    """A prompt as the run's data have it: in joined pairs a line break ends it."""
    return prompt + "\n" * run.config.data.joined


def texts(run, prompts, num, choice, seed=0, report=None) -> list[str]:
    """The whole continuations, of as many prompts at once as ROWS."""
    out = []
    for first in range(0, len(prompts), ROWS):
        pieces = continuations(run, prompts[first : first + ROWS], num, choice, seed, report, first)
        out += ["".join(column) for column in zip(*pieces, strict=True)]
    return out


def completions(run, prompts, num, choice, seed=0, report=None) -> list[str]:
    """What a run makes of prompts: an encoder-decoder its answers, any other model of
    text what it writes after them.
    """
    if run.programs.method.language.begin is None:
        return texts(run, [asked(run, prompt) for prompt in prompts], num, choice, seed, report)
    check_numbers(num, seed)
    choice.check()
    given = [
        f"{argument(name)}={value}"
        for name, value in choice._asdict().items()
        if value != getattr(PLAIN, name)
    ]
    require(
        not given,
        f"{' '.join(given)}: an encoder-decoder answers by beam search (config.beams)",
    )
    return [
        text
        for first in range(0, len(prompts), ROWS)
        for text in answers(run, prompts[first : first + ROWS], report)
    ]


def answers(run, sources: list[str], report=None) -> list[str]:
    """What an encoder-decoder makes of each source, by beam search of config.beams."""
    width, tokenizer = run.spec.shape[0], run.tokenizer
    rows = np.full((len(sources), width), tokenizer.end, np.int32)
    mask: np.ndarray = np.zeros(rows.shape, np.float32)
    for row, seen, source in zip(rows, mask, sources, strict=True):
        tokens = tokenizer.encode(source)
        if len(tokens) > width and report:
            report(
                f"a source has {len(tokens):,} tokens, and the longest pair of the data "
                f"{width}: only the first {width} count"
            )
        row[: len(tokens[:width])], seen[: len(tokens[:width])] = tokens[:width], 1
    batch = dict(source=rows, source_mask=mask, index=np.arange(len(sources), dtype=np.int32))
    drawn = jax.jit(run.programs.method.samplers["answer"])(run.state, run.state.key, batch)
    return [tokenizer.text(row) for row in np.asarray(drawn)]


def converse(run, num, choice, seed, report, source=None, out=None):
    """Read a prompt a line, print its answer as it is written, until the input ends."""
    source, out = source or sys.stdin, out or sys.stdout
    for turn in range(2**31):
        out.write("> " if source.isatty() else "")
        out.flush()
        try:
            line = source.readline()
        except UnicodeDecodeError as e:
            raise UserError(f"the standard input is no UTF-8 text: {e.reason}") from None
        if not line:
            return
        prompt = (line.removeprefix(BYTE_ORDER_MARK) if turn == 0 else line).rstrip("\r\n")
        if run.programs.method.language.begin is not None:
            print_text(answers(run, [prompt], report)[0], out)
        else:
            prompt = asked(run, prompt)
            stream_to(
                out,
                prompt,
                continuations(run, [prompt], num, choice, (seed + turn) % SEEDS, report),
            )


def stream_to(out: TextIO, prompt: str, pieces: Iterable[Sequence[str]]) -> str:
    """A prompt and what follows it, as it comes; returns the whole."""
    parts = [prompt]
    print_text(prompt, out, end="")
    for (piece,) in pieces:
        parts.append(piece)
        print_text(piece, out, end="")
    out.write("\n")
    return "".join(parts)


def read_prompt(path: str) -> str:
    """The text of a prompt file with line feeds, without its last line break."""
    return (
        read_text(path, f"{argument('prompt_file')}={path}")
        .replace("\r\n", "\n")
        .removesuffix("\n")
    )
