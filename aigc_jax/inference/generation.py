"""Text generation by a run: continuations of prompts and targets of source texts."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TextIO

import jax
import numpy as np

from aigc_jax.core.rng import sample_key
from aigc_jax.methods.decoding import PLAIN, SamplingParams, check_range
from aigc_jax.methods.text_decoder import TextDecoder
from aigc_jax.utils.errors import UserError, mark_argument, require
from aigc_jax.utils.files import BYTE_ORDER_MARK, read_text
from aigc_jax.utils.terminal import print_text

# Number of texts that are decoded at once, whatever the number of prompts: it bounds
# the memory.
ROWS = 64
MOST = 10_000_000  # limit of the tokens of a text and of the texts of a call
SEEDS = 2**32
DECODERS = 8  # structures of sampling parameters whose programs a run keeps


class DecoderCache:
    """The text decoders of a run, which compile once for all sampling parameters of one
    `SamplingParams.structure`; at most DECODERS of them.
    """

    def __init__(self, run: Any) -> None:
        self.run = run
        self._decoders: dict[SamplingParams, TextDecoder] = {}

    def find(self, sampling: SamplingParams) -> TextDecoder:
        """Return the decoder with these parameters; a UserError if they are invalid."""
        sampling.check_ranges()
        language, kind = self.run.programs.method.language, sampling.structure()
        decoder = self._decoders.pop(kind, None) or TextDecoder(
            language.apply, language.net, self.run.state.params, sampling, self.run.end_tokens
        )
        self._decoders[kind] = decoder  # the last used is the last of the dict
        if len(self._decoders) > DECODERS:
            del self._decoders[next(iter(self._decoders))]
        return decoder.with_sampling(sampling)


def check_tokens_and_seed(max_tokens: int, seed: int) -> None:
    """Raise a UserError unless the tokens are 1 to MOST, the seed 0 to SEEDS - 1."""
    check_range("tokens", max_tokens, 1, MOST, integer=True)
    check_range("seed", seed, 0, SEEDS - 1, integer=True)


def encode_prompts(run: Any, prompts: list[str]) -> list[np.ndarray]:  # ids [T > 0] of each
    """Return the token ids of each prompt. The start token is prepended to an empty
    prompt, and to the source sequences of a prefix LM (config.data.prefix_lm).
    """
    out = []
    for prompt in prompts:
        ids = run.tokenizer.encode(prompt)
        needs_start = run.config.data.prefix_lm or not len(ids)
        require(
            not needs_start or run.spec.start >= 0,
            f"an empty {mark_argument('prompt')} needs a start token, but the tokenizer has none",
        )
        out.append(np.append(np.array([run.spec.start] if needs_start else [], np.int32), ids))
    return out


def stream_continuations(
    run: Any,
    prompts: list[str],
    max_tokens: int,
    sampling: SamplingParams,
    seed: int = 0,
    warn: Callable[[str], None] | None = None,
    first_index: int = 0,
) -> Iterator[list[str]]:  # the next piece of every text
    """Yield lists with the next piece of text of each prompt's continuation.

    Pieces end at character boundaries: the bytes of an incomplete character are held
    back. An empty prompt continues from the start token, which also precedes the source
    of a prefix LM.

    Args:
      run: a run of a method that generates text.
      prompts: the texts to continue.
      max_tokens: maximum number of tokens per prompt, 1 to MOST.
      sampling: sampling parameters.
      seed: the same seed gives the same text, 0 to SEEDS - 1.
      warn: called with a warning where a prompt exceeds the network's positions;
        None: no warnings.
      first_index: index of the first prompt among all prompts, which keys its noise.

    Raises:
      UserError: a number is out of range, or an empty prompt has no start token.
    """
    check_tokens_and_seed(max_tokens, seed)
    tokenizer, net = run.tokenizer, run.programs.method.language.net
    encoded = encode_prompts(run, prompts)
    longest, limit = max(map(len, encoded)), net.capacity
    writer = run.decoders.find(sampling)
    if limit and longest > limit - writer.chunk and warn:
        warn(
            f"the prompt has {longest:,} tokens and the network {limit:,} positions: only "
            f"the last {limit - writer.chunk:,} are used"
        )
    streams = [tokenizer.make_stream_decoder() for _ in prompts]
    for tokens in writer.stream_tokens(
        encoded, max_tokens, sample_key(run.state.key, seed), first_index
    ):
        yield [stream(row[row >= 0]) for stream, row in zip(streams, tokens, strict=True)]


def format_prompt(run: Any, prompt: str) -> str:  # with a line break for a prefix LM
    """Return a prompt in the format of the run's data: a line break ends the source of
    a prefix LM.
    """
    return prompt + "\n" * run.config.data.prefix_lm


def generate_continuations(
    run: Any,
    prompts: list[str],
    max_tokens: int,
    sampling: SamplingParams,
    seed: int = 0,
    warn: Callable[[str], None] | None = None,
) -> list[str]:  # without the prompts
    """Return the complete continuations, decoded in batches of ROWS prompts. Arguments
    are those of `stream_continuations`.
    """
    out = []
    for first in range(0, len(prompts), ROWS):
        pieces = stream_continuations(
            run, prompts[first : first + ROWS], max_tokens, sampling, seed, warn, first
        )
        out += ["".join(column) for column in zip(*pieces, strict=True)]
    return out


def generate_completions(
    run: Any,
    prompts: list[str],
    max_tokens: int,
    sampling: SamplingParams,
    seed: int = 0,
    warn: Callable[[str], None] | None = None,
) -> list[str]:  # without the prompts
    """Return the completion of each prompt: its target by an encoder-decoder, its
    continuation by any other model of text.

    Arguments are those of `stream_continuations`. An encoder-decoder decodes by beam
    search: `max_tokens` and `seed` have no effect, and sampling parameters raise a
    UserError.
    """
    if run.programs.method.language.begin is None:
        return generate_continuations(
            run,
            [format_prompt(run, prompt) for prompt in prompts],
            max_tokens,
            sampling,
            seed,
            warn,
        )
    check_tokens_and_seed(max_tokens, seed)
    sampling.check_ranges()
    options = [
        f"{mark_argument(name)}={value}"
        for name, value in sampling._asdict().items()
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
        for text in translate(run, prompts[first : first + ROWS], warn)
    ]


def translate(
    run: Any, sources: list[str], warn: Callable[[str], None] | None = None
) -> list[str]:  # one target per source, by beam search
    """Return the target of each source by an encoder-decoder's beam search with
    config.num_beams hypotheses.

    Args:
      run: a run on pairs of texts.
      sources: the source texts, which are decoded in one batch.
      warn: called with a warning where a source is cut to the length of the data's
        longest pair; None: no warnings.
    """
    width, tokenizer = run.spec.shape[0], run.tokenizer
    rows = np.full((len(sources), width), tokenizer.end, np.int32)
    mask: np.ndarray = np.zeros(rows.shape, np.float32)
    for row, mask_row, source in zip(rows, mask, sources, strict=True):
        tokens = tokenizer.encode(source)
        if len(tokens) > width and warn:
            warn(
                f"a source has {len(tokens):,} tokens, and the longest pair of the data "
                f"{width}: only the first {width} are used"
            )
        row[: len(tokens[:width])], mask_row[: len(tokens[:width])] = tokens[:width], 1
    batch = dict(source=rows, source_mask=mask, index=np.arange(len(sources), dtype=np.int32))
    outputs = jax.jit(run.programs.method.samplers["answer"])(run.state, run.state.key, batch)
    return [tokenizer.decode_until_end(row) for row in np.asarray(outputs)]


def interactive_loop(
    run: Any,
    max_tokens: int,
    sampling: SamplingParams,
    seed: int,
    warn: Callable[[str], None] | None,
    prompts: TextIO | None = None,
    out: TextIO | None = None,
) -> None:
    """Read one prompt per line and print its completion, piece by piece except for an
    encoder-decoder, until the input ends.

    Args:
      run: a run of a method that generates text.
      max_tokens: maximum number of tokens per prompt.
      sampling: sampling parameters; an encoder-decoder ignores them.
      seed: the seed of the first line; each further line increments it.
      warn: as in `stream_continuations`.
      prompts: a text stream with one per line; None: stdin. A terminal shows "> ".
      out: the text stream of the completions; None: stdout.

    Raises:
      UserError: the input is not UTF-8, or as in `stream_continuations`.
    """
    prompts, out = prompts or sys.stdin, out or sys.stdout
    for turn in range(2**31):
        out.write("> " if prompts.isatty() else "")
        out.flush()
        try:
            line = prompts.readline()
        except UnicodeDecodeError as e:
            raise UserError(f"the standard input is not UTF-8 text: {e.reason}") from None
        if not line:
            return
        prompt = (line.removeprefix(BYTE_ORDER_MARK) if turn == 0 else line).rstrip("\r\n")
        if run.programs.method.language.begin is not None:
            print_text(translate(run, [prompt], warn)[0], out)
        else:
            prompt = format_prompt(run, prompt)
            print_stream(
                out,
                prompt,
                stream_continuations(
                    run, [prompt], max_tokens, sampling, (seed + turn) % SEEDS, warn
                ),
            )


def print_stream(
    out: TextIO, prompt: str, pieces: Iterable[Sequence[str]]
) -> str:  # prompt and pieces
    """Print a prompt and the pieces of its continuation, and return the full text.

    Args:
      out: a text stream.
      prompt: printed first.
      pieces: what `stream_continuations` yields for this prompt alone.
    """
    parts = [prompt]
    print_text(prompt, out, end="")
    for (piece,) in pieces:
        parts.append(piece)
        print_text(piece, out, end="")
    out.write("\n")
    return "".join(parts)


def read_prompt_file(path: str) -> str:
    """Return the text of a prompt file with LF line breaks, but for a final one."""
    return (
        read_text(path, f"{mark_argument('prompt_file')}={path}")
        .replace("\r\n", "\n")
        .removesuffix("\n")
    )
