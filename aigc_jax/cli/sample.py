"""Draw samples from a run's checkpoint.

Writes a sheet with named rows and columns or a figure (.png), or the arrays (.npy), by
default into the run's directory.
Language models continue a prompt (--prompt, --prompt_file or --interactive), streamed
to the terminal or written to a .txt.
"""

import hashlib
import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from aigc_jax.cli.sample_checks import check_drawable
from aigc_jax.cli.sample_text import write_generated_text, write_text_samples
from aigc_jax.utils.errors import require
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
        help="number of samples (default: 64, or the number of samples in one figure); a sheet "
        "of named columns is filled up to full rows",
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
        "traversal, manifold (of two latents), latents, log_likelihood; a GAN has "
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
        "--latent",
        default="",
        metavar="I:V,...",
        help="samplers with latents, such as the prior of a GAN or a VAE: latents with the same "
        "value in all samples, such as 0:1.5,3:-0.2 (default: all are drawn)",
    )
    parser.add_argument(
        "--input",
        default="",
        metavar="FILE",
        help="samplers that use images, such as reconstruction: an image file instead of the "
        "split's examples, resized and cropped to their shape",
    )
    parser.add_argument(
        "--inception",
        default="",
        metavar="FILE",
        help="separability: extract image features by Inception with these weights, instead of "
        "config.extractor",
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
    for flag in ("latent", "input", "inception"):
        require(
            not getattr(args, flag) or not run.is_text,
            f"--{flag} is for samples of images, and the run's samples are text",
        )
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
    """Draw samples of images or points, write them to a file and print its path."""
    args.what = args.what or run.default_sampler
    out = Path(args.out) if args.out else default_output_path(run, args)
    check_drawable(run, args, out)
    if not args.out:
        make_output_directory(out.parent)
    note = save_image_samples(run, args, out)
    if note:
        print_warning(note)
    print_text(out)


def save_image_samples(run: "Run", args: Namespace, out: Path) -> str:  # a note, or ""
    """Draw samples of images or points and write them to a .png or a .npy. Return a
    note where a .png has more samples than --num, to fill its rows.
    """
    import numpy as np

    from aigc_jax.inference import conditioning
    from aigc_jax.inference.sheets import Request, draw_sheet, fill_rows
    from aigc_jax.media.provenance_marks import describe_origin
    from aigc_jax.utils.disk import convert_disk_errors

    request = Request(
        args.what,
        args.num,
        args.seed,
        args.label,
        args.split,
        conditioning.parse_latents(args.latent),
        conditioning.read_image(args.input, run.spec) if args.input else None,
    )
    request, note = (request, "") if out.suffix == ".npy" else fill_rows(run, request)
    run.inception = args.inception
    sheet = draw_sheet(run, request)
    origin = describe_origin(run.stored["hash"], run.checkpoint_hash(), run.step, args.seed)
    with convert_disk_errors(out):
        if out.suffix == ".npy":
            np.save(out, sheet.samples)
        else:
            sheet.save(out, origin)
    return note


def default_output_path(run: "Run", args: Namespace) -> Path:
    """Return the default output file, in the run's directory."""
    parts = [args.what, f"step{run.step:08d}", f"seed{args.seed}"]
    parts += [args.split] * (args.split is not None)
    parts += [f"class{args.label}"] * (args.label is not None)
    parts += [f"num{args.num}"] * (args.num is not None)
    settings = args.latent + args.input + args.inception
    parts += [hashlib.sha256(settings.encode()).hexdigest()[:8]] * bool(settings)
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
