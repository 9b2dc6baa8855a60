"""Draw samples from a run's checkpoint.

Writes a sheet with named rows and columns or a figure (.png), or the arrays (.npy), by
default into the run's directory.
Language models continue a prompt (--prompt, --prompt_file or --interactive), streamed
to the terminal or written to a .txt.
"""

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from aigc_jax.utils.errors import choose, require
from aigc_jax.utils.terminal import print_text, print_warning

# Flags of text generation from a prompt, with defaults; no other sampler reads them.
WRITING = dict(
    prompt="",
    prompt_file="",
    interactive=False,
    tokens=256,
    temperature=1.0,
    top_k=0,
    top_p=1.0,
    min_p=0.0,
    repetition=1.0,
)

if TYPE_CHECKING:
    from aigc_jax.inference.run import Run


def add_arguments(parser: ArgumentParser) -> None:
    """Add the run, its checkpoint, the sampler and its options."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="a run")
    parser.add_argument(
        "--checkpoint",
        default="latest",
        metavar="latest|best",
        help="the checkpoint to sample from (default: latest)",
    )
    parser.add_argument(
        "--num",
        type=int,
        metavar="N",
        help="number of samples (default: 64, or the number of samples in one figure)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help=".png: a sheet or a figure; .npy: the arrays (default: a .png in WORKDIR/sampled/, "
        "named by sampler, step and seed); .txt: text (default: the terminal); .mid: tunes in ABC "
        "notation, one file per tune",
    )
    parser.add_argument(
        "--what",
        metavar="NAME",
        help="the sampler of the method (default: prior; a VAE has reconstruction, interpolation, "
        "traversal, manifold, latents, log_likelihood; a GAN has "
        "interpolation); neighbours: samples with their nearest training examples; "
        "separability: test examples and samples, ranked by a classifier of one against the other",
    )
    parser.add_argument(
        "--split",
        metavar="train|valid|test",
        help="samplers that use examples, such as reconstruction: the split of the examples "
        "(default: test; of neighbours: train)",
    )
    parser.add_argument(
        "--class",
        type=int,
        dest="label",
        metavar="K",
        help="class-conditional models: the class to sample (default: cycle through all classes)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="random seed of the samples (default: 0)",
    )
    parser.add_argument(
        "--prompt",
        metavar="TEXT",
        help="the prompt to continue (default: the start of a text)",
    )
    parser.add_argument(
        "--prompt_file",
        metavar="FILE",
        help="a UTF-8 text file with the prompt",
    )
    parser.add_argument(
        "--interactive",
        action="store_true",
        help="read one prompt per line and continue each, until end of input",
    )
    parser.add_argument(
        "--tokens",
        type=int,
        metavar="N",
        help="maximum number of tokens to generate (default: 256)",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="softmax temperature; below 1: likelier text; 0: greedy decoding (default: 1)",
    )
    parser.add_argument(
        "--top_k",
        type=int,
        metavar="K",
        help="sample from the K likeliest tokens (default: 0, all)",
    )
    parser.add_argument(
        "--top_p",
        type=float,
        metavar="P",
        help="sample from the likeliest tokens with total probability P (default: 1)",
    )
    parser.add_argument(
        "--min_p",
        type=float,
        metavar="P",
        help="sample from the tokens at least P times as likely as the likeliest (default: 0)",
    )
    parser.add_argument(
        "--repetition",
        type=float,
        metavar="R",
        help="repetition penalty; above 1: tokens already in the text become unlikelier "
        "(default: 1)",
    )
    parser.set_defaults(**WRITING)


def run(args: Namespace, overrides: dict[str, str]) -> int:  # the exit code
    """Draw samples, write them to a file or the terminal and return exit code 0."""
    from aigc_jax.training.memory import convert_inference_errors

    require(
        not args.out or Path(args.out).suffix in (".png", ".npy", ".txt", ".mid"),
        f"--out={args.out} must end in .png or .npy, for text in .txt, for tunes in .mid",
    )
    with convert_inference_errors(args.workdir, "a smaller --num or --tokens"):
        draw_and_write(args)
    return 0


def draw_and_write(args: Namespace) -> None:
    """Draw samples of the run and write them to a file or the terminal."""
    from aigc_jax.inference.load import load

    run = load(args.workdir, args.checkpoint)
    is_prompted = args.what is None and args.label is None and args.split is None
    if run.programs.method.language is not None and is_prompted:
        write_generated_text(run, args)
        return
    for flag, usual in WRITING.items():
        require(
            getattr(args, flag) == usual,
            f"--{flag} applies only to text generation from a prompt, not to the run's sampler "
            f"{args.what or run.default_sampler!r}",
        )
    (write_text_samples if run.is_text else write_image_samples)(run, args)


def write_image_samples(run: "Run", args: Namespace) -> None:
    """Draw samples of images or points and write them to a .png or a .npy."""
    import numpy as np

    from aigc_jax.inference.sheets import Request, draw_sheet
    from aigc_jax.media.provenance_marks import describe_origin
    from aigc_jax.utils.disk import convert_disk_errors

    args.what = args.what or run.default_sampler
    out = Path(args.out) if args.out else default_output_path(run, args)
    check_drawable(run, args, out)
    if not args.out:
        make_output_directory(out.parent)
    sheet = draw_sheet(run, Request(args.what, args.num, args.seed, args.label, args.split))
    origin = describe_origin(run.stored["hash"], run.checkpoint_hash(), run.step, args.seed)
    with convert_disk_errors(out):
        if out.suffix == ".npy":
            np.save(out, sheet.samples)
        else:
            sheet.save(out, origin)
    print_text(out)


def check_drawable(run: "Run", args: Namespace, out: Path) -> None:
    """Raise a UserError unless samples of `args.what` can be written to `out`."""
    from aigc_jax.media import images

    require(
        out.suffix not in (".txt", ".mid"),
        f"--out={args.out} is for text, but config.method = {run.config.method!r} generates none",
    )
    samplers = run.programs.method.samplers
    of_prior = ("neighbours", "separability") if "prior" in samplers else ()
    choose(dict.fromkeys((*samplers, *of_prior)), args.what, "what")
    check_split_is_read(run, args, of_prior)
    if args.what in samplers and not samplers[args.what].figure and out.suffix != ".npy":
        shape = run.sample_shape(args.what)
        require(
            images.is_drawable(shape, run.spec),
            f"--what={args.what} draws arrays {list(shape)}, which cannot be drawn as "
            f"{run.spec.kind} {list(run.spec.shape)}: it writes .npy files alone, by "
            f"--out={args.what}.npy",
        )
    require(
        args.what != "separability" or run.spec.kind == "image",
        f"--what=separability is for images, and the run's data are {run.spec.kind}",
    )


def check_split_is_read(run: "Run", args: Namespace, views: tuple[str, ...] = ()) -> None:
    """Raise a UserError for --split with a sampler that uses no examples; the
    `views` of samples use some.
    """
    samplers = run.programs.method.samplers
    what = args.what or run.default_sampler
    readers = [*(name for name in samplers if samplers[name].conditioned), *views]
    require(
        args.split is None or what in readers,
        f"--split={args.split} is not read by --what={what}, only by "
        f"{', '.join(readers) or 'no sampler'} of this run",
    )


def default_output_path(run: "Run", args: Namespace) -> Path:
    """Return the default output file, in the run's directory."""
    parts = [args.what, f"step{run.step:08d}", f"seed{args.seed}"]
    parts += [args.split] * (args.split is not None)
    parts += [f"class{args.label}"] * (args.label is not None)
    parts += [f"num{args.num}"] * (args.num is not None)
    return run.dir / "sampled" / f"{'-'.join(parts)}.png"


def make_output_directory(directory: Path) -> None:
    """Create the folder of default output files in a run's directory."""
    from aigc_jax.utils.disk import convert_disk_errors

    existing = directory if directory.is_dir() else directory.parent
    require(
        os.access(existing, os.W_OK),
        f"{existing} is not writable: name a file for the samples, such as --out=samples.png",
    )
    with convert_disk_errors(directory):
        directory.mkdir(exist_ok=True)


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
    what, split = args.what or run.default_sampler, args.split or "test"
    tokens = run.draw(args.num, what, args.seed, split, args.label)
    texts = [run.tokenizer.decode_until_end(row) for row in tokens]
    if out is None:
        print_text("\n----\n".join(texts))
    elif out.suffix == ".npy":
        with convert_disk_errors(out):
            np.save(out, tokens)
        print_text(out)
    else:
        write_texts(run, texts, out, args.seed)


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
