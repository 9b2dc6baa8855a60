"""Text generation by a run: continuations of prompts and targets of source texts."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TextIO

import jax
import numpy as np

from aigc_jax.core.rng import SAMPLE, fold_in
from aigc_jax.methods.decoding import PLAIN, SamplingParams, TextDecoder, check_range
from aigc_jax.utils.errors import UserError, argument, require
from aigc_jax.utils.files import BYTE_ORDER_MARK, read_text
from aigc_jax.utils.terminal import print_text

# Number of texts that are decoded at once, whatever the number of prompts: it bounds
# the memory.
ROWS = 64
MOST = 10_000_000  # limit of the tokens of a text and of the texts of a call
SEEDS = 2**32


def check_numbers(num: int, seed: int) -> None:
    """Raise a UserError where the number of tokens or the seed is out of range."""
    check_range("tokens", num, 1, MOST, integer=True)
    check_range("seed", seed, 0, SEEDS - 1, integer=True)


def encode_prompts(run: Any, prompts: list[str]) -> list[np.ndarray]:
    """Return the token ids of each prompt. The start token is prepended to an empty
    prompt, and to the source sequences of a prefix LM (config.data.prefix_lm).
    """
    out = []
    for prompt in prompts:
        ids = run.tokenizer.encode(prompt)
        needs_start = run.config.data.prefix_lm or not len(ids)
        require(
            not needs_start or run.spec.start >= 0,
            f"an empty {argument('prompt')} needs a start token, but the tokenizer has none",
        )
        out.append(np.append(np.array([run.spec.start] if needs_start else [], np.int32), ids))
    return out


def stream_continuations(
    run: Any,
    prompts: list[str],
    num: int,
    choice: SamplingParams,
    seed: int = 0,
    report: Callable[[str], None] | None = None,
    first: int = 0,
) -> Iterator[list[str]]:
    """Yield lists with the next piece of text of each prompt's continuation.

    Pieces end at character boundaries: the bytes of an incomplete character are held
    back. An empty prompt continues from the start token, which also precedes the source
    of a prefix LM.

    Args:
      run: a run of a method that generates text.
      prompts: the texts to continue.
      num: maximum number of tokens per prompt.
      choice: sampling parameters.
      seed: the same seed gives the same text.
      report: called with a warning where a prompt exceeds the network's positions.
      first: index of the first prompt among all prompts, which keys its noise.
    """
    check_numbers(num, seed)
    tokenizer, language = run.tokenizer, run.programs.method.language
    net, encoded = language.net, encode_prompts(run, prompts)
    longest, limit = max(map(len, encoded)), net.capacity
    writer = TextDecoder(language.apply, net, run.state.params, choice, run.ends)
    if limit and longest > limit - writer.chunk and report:
        report(
            f"the prompt has {longest:,} tokens and the network {limit:,} positions: only "
            f"the last {limit - writer.chunk:,} are used"
        )
    streams = [tokenizer.stream() for _ in prompts]
    for tokens in writer.write(encoded, num, fold_in(run.state.key, SAMPLE, seed), first):
        yield [stream(row[row >= 0]) for stream, row in zip(streams, tokens, strict=True)]


def format_prompt(run: Any, prompt: str) -> str:
    """Return a prompt in the format of the run's data: a line break ends the source of
    a prefix LM.
    """
    return prompt + "\n" * run.config.data.prefix_lm


def generate_texts(
    run: Any,
    prompts: list[str],
    num: int,
    choice: SamplingParams,
    seed: int = 0,
    report: Callable[[str], None] | None = None,
) -> list[str]:
    """Return the complete continuations, decoded in batches of ROWS prompts. Arguments
    are those of `stream_continuations`.
    """
    out = []
    for first in range(0, len(prompts), ROWS):
        pieces = stream_continuations(
            run, prompts[first : first + ROWS], num, choice, seed, report, first
        )
        out += ["".join(column) for column in zip(*pieces, strict=True)]
    return out


def generate_completions(
    run: Any,
    prompts: list[str],
    num: int,
    choice: SamplingParams,
    seed: int = 0,
    report: Callable[[str], None] | None = None,
) -> list[str]:
    """Return the completion of each prompt: its target by an encoder-decoder, its
    continuation by any other model of text.

    Arguments are those of `stream_continuations`; an encoder-decoder decodes by beam
    search and accepts no sampling parameters.
    """
    if run.programs.method.language.begin is None:
        return generate_texts(
            run, [format_prompt(run, prompt) for prompt in prompts], num, choice, seed, report
        )
    check_numbers(num, seed)
    choice.check()
    options = [
        f"{argument(name)}={value}"
        for name, value in choice._asdict().items()
        if value != getattr(PLAIN, name)
    ]
    require(
        not options,
        f"{' '.join(options)} cannot be set: an encoder-decoder uses beam search "
        "(config.num_beams)",
    )
    return [
        text
        for first in range(0, len(prompts), ROWS)
        for text in translate(run, prompts[first : first + ROWS], report)
    ]


def translate(
    run: Any, sources: list[str], report: Callable[[str], None] | None = None
) -> list[str]:
    """Return the target of each source by an encoder-decoder's beam search with
    config.num_beams hypotheses.
    """
    width, tokenizer = run.spec.shape[0], run.tokenizer
    rows = np.full((len(sources), width), tokenizer.end, np.int32)
    mask: np.ndarray = np.zeros(rows.shape, np.float32)
    for row, mask_row, source in zip(rows, mask, sources, strict=True):
        tokens = tokenizer.encode(source)
        if len(tokens) > width and report:
            report(
                f"a source has {len(tokens):,} tokens, and the longest pair of the data "
                f"{width}: only the first {width} are used"
            )
        row[: len(tokens[:width])], mask_row[: len(tokens[:width])] = tokens[:width], 1
    batch = dict(source=rows, source_mask=mask, index=np.arange(len(sources), dtype=np.int32))
    outputs = jax.jit(run.programs.method.samplers["answer"])(run.state, run.state.key, batch)
    return [tokenizer.text(row) for row in np.asarray(outputs)]


def interactive_loop(
    run: Any,
    num: int,
    choice: SamplingParams,
    seed: int,
    report: Callable[[str], None] | None,
    source: Any = None,
    out: Any = None,
) -> None:
    """Read one prompt per line and print its completion as it is decoded, until the
    input ends.
    """
    source, out = source or sys.stdin, out or sys.stdout
    for turn in range(2**31):
        out.write("> " if source.isatty() else "")
        out.flush()
        try:
            line = source.readline()
        except UnicodeDecodeError as e:
            raise UserError(f"the standard input is not UTF-8 text: {e.reason}") from None
        if not line:
            return
        prompt = (line.removeprefix(BYTE_ORDER_MARK) if turn == 0 else line).rstrip("\r\n")
        if run.programs.method.language.begin is not None:
            print_text(translate(run, [prompt], report)[0], out)
        else:
            prompt = format_prompt(run, prompt)
            stream_to(
                out,
                prompt,
                stream_continuations(run, [prompt], num, choice, (seed + turn) % SEEDS, report),
            )


def stream_to(out: TextIO, prompt: str, pieces: Iterable[Sequence[str]]) -> str:
    """Print a prompt and the pieces of its continuation, and return the full text."""
    parts = [prompt]
    print_text(prompt, out, end="")
    for (piece,) in pieces:
        parts.append(piece)
        print_text(piece, out, end="")
    out.write("\n")
    return "".join(parts)


def read_prompt(path: str) -> str:
    """Return the text of a prompt file with LF line breaks, but for a final one."""
    return (
        read_text(path, f"{argument('prompt_file')}={path}")
        .replace("\r\n", "\n")
        .removesuffix("\n")
    )
