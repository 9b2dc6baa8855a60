"""Text for `sample`: continuations of prompts, and samples of models of text."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from aigc_jax.cli.sample_checks import check_split_is_read
from aigc_jax.utils.errors import require
from aigc_jax.utils.terminal import print_text, print_warning

if TYPE_CHECKING:
    import numpy as np

    from aigc_jax.inference.run import Run


def write_text_samples(run: "Run", args: Namespace) -> None:
    """Draw text by a sampler and write it to the terminal or a .txt, or its tokens to a
    .npy.
    """
    import numpy as np

    from aigc_jax.utils.disk import convert_disk_errors

    out = Path(args.out) if args.out else None
    require(
        out is None or out.suffix in (".txt", ".npy"),
        f"--out={args.out} must end in .txt, or in .npy for tokens, because the run's "
        "samples are text",
    )
    check_split_is_read(run, args)
    if out is None:
        print_text(draw_texts(run, args))
        return
    tokens = draw_tokens(run, args)
    texts = [run.tokenizer.decode_until_end(row) for row in tokens]
    if out.suffix == ".npy":
        with convert_disk_errors(out):
            np.save(out, tokens)
        print_text(out)
    else:
        write_texts(run, texts, out, args.seed)


def draw_tokens(run: "Run", args: Namespace) -> "np.ndarray":  # -> [num, T]
    """Draw texts as tokens by a sampler."""
    what, split = args.what or run.default_sampler, args.split or "test"
    return run.draw(args.num, what, args.seed, split, args.label)


def draw_texts(run: "Run", args: Namespace) -> str:
    """Draw texts by a sampler and return them as the terminal shows them."""
    rows = draw_tokens(run, args)
    return "\n----\n".join(run.tokenizer.decode_until_end(row) for row in rows)


def write_texts(run: "Run", texts: list[str], out: Path, seed: int) -> None:
    """Write texts and print the names of the files.

    Args:
      run: the run, whose hashes are the origin in the files.
      texts: the samples.
      out: a .txt for all texts; or a .mid, for a .txt of this name and each tune in a
        .mid of its own next to it.
      seed: the seed of the samples, part of the origin.
    """
    from aigc_jax.media import music, sample_files
    from aigc_jax.media.provenance_marks import describe_origin
    from aigc_jax.utils.disk import convert_disk_errors

    origin = describe_origin(run.stored["hash"], run.checkpoint_hash(), run.step, seed)
    with convert_disk_errors(out):
        sample_files.save_texts(out.with_suffix(".txt"), texts, origin)
        tunes = (
            music.write_midi_files(out.with_suffix(""), texts, origin)
            if out.suffix == ".mid"
            else []
        )
    print_text("\n".join(map(str, [out.with_suffix(".txt"), *tunes])))


def write_generated_text(run: "Run", args: Namespace) -> None:
    """Generate text from prompts: one text streamed to the terminal, or several, to the
    terminal or a file.
    """
    from aigc_jax.inference import generation
    from aigc_jax.methods.decoding import SamplingParams, check_range

    choice = SamplingParams(args.temperature, args.top_k, args.top_p, args.min_p, args.repetition)
    options = args.tokens, choice, args.seed, print_warning
    require(
        not (args.prompt and args.prompt_file),
        "--prompt and --prompt_file are mutually exclusive: set one",
    )
    if args.interactive:
        generation.interactive_loop(run, *options)
        return
    prompt = generation.read_prompt_file(args.prompt_file) if args.prompt_file else args.prompt
    check_range("num", 1 if args.num is None else args.num, 1, generation.MOST, integer=True)
    language = run.programs.method.language
    if language is not None and language.begin is not None:
        answers = generation.generate_completions(run, prompt.split("\n"), *options)
        print_text("\n".join(answers))
        return
    prompt = generation.format_prompt(run, prompt)
    if not args.out and args.num in (None, 1):
        pieces = generation.stream_continuations(run, [prompt], *options)
        generation.print_stream(sys.stdout, prompt, pieces)
        return
    texts = generation.generate_continuations(run, [prompt] * (args.num or 1), *options)
    texts = [prompt + text for text in texts]
    if not args.out:
        print_text("\n----\n".join(texts))
        return
    out = Path(args.out)
    require(
        out.suffix in (".txt", ".mid"),
        f"--out={args.out} must end in .txt, or for tunes in ABC notation in .mid, "
        "because the run writes text",
    )
    write_texts(run, texts, out, args.seed)
