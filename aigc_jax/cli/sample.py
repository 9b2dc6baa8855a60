"""Draw samples from a run's checkpoint.

A grid (.png), or the arrays themselves (.npy), in the run's directory where --out names
no file. A model of text continues prompts, in the terminal as it goes or to a .txt:
--prompt, --prompt_file, or --interactive.
"""

import os
import sys
from pathlib import Path

from aigc_jax.utils.errors import choose, require
from aigc_jax.utils.terminal import print_text, print_warning

# How text is written after a prompt, and the defaults; no other sampler reads them.
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


def add_arguments(parser):
    """Add the run, its checkpoint, which sampler to draw from, and its options."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="a run")
    parser.add_argument(
        "--checkpoint",
        default="latest",
        metavar="latest|best",
        help="which checkpoint (default: latest)",
    )
    parser.add_argument(
        "--num",
        type=int,
        metavar="N",
        help="how many (default: 64, or what one picture is made of)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help=".png: a picture; .npy: the arrays (default: a .png in WORKDIR/sampled/, named by "
        "what, step and seed); .txt: text (default: the terminal); .mid: tunes in ABC notation, "
        "a file each",
    )
    parser.add_argument(
        "--what",
        metavar="NAME",
        help="which sampler of the method (default: prior; a VAE: reconstruction, interpolation, "
        "traversal, manifold; a GAN: "
        "interpolation); neighbours: samples beside the nearest training examples; "
        "separability: what gives samples away",
    )
    parser.add_argument(
        "--class",
        type=int,
        dest="label",
        metavar="K",
        help="of a generator that knows classes: samples of class K alone (default: all in turn)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="other samples for another seed (default: 0)",
    )
    parser.add_argument(
        "--prompt",
        metavar="TEXT",
        help="what to write on after (default: the beginning of a text)",
    )
    parser.add_argument(
        "--prompt_file",
        metavar="FILE",
        help="the prompt, as a file of UTF-8 text",
    )
    parser.add_argument(
        "--interactive",
        action="store_true",
        help="read a prompt a line and answer each, until the input ends",
    )
    parser.add_argument(
        "--tokens",
        type=int,
        metavar="N",
        help="the most tokens to write (default: 256)",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="below 1: likelier text; 0: always the likeliest token (default: 1)",
    )
    parser.add_argument(
        "--top_k",
        type=int,
        metavar="K",
        help="only among the K likeliest tokens (default: 0, all)",
    )
    parser.add_argument(
        "--top_p",
        type=float,
        metavar="P",
        help="only the likeliest tokens that reach probability P together (default: 1)",
    )
    parser.add_argument(
        "--min_p",
        type=float,
        metavar="P",
        help="only tokens at least P times as likely as the likeliest (default: 0)",
    )
    parser.add_argument(
        "--repetition",
        type=float,
        metavar="R",
        help="above 1: tokens that are there already become unlikelier (default: 1)",
    )
    parser.set_defaults(**WRITING)


def run(args, overrides) -> int:
    """Draw samples into a file or onto the terminal and return the exit code 0."""
    import numpy as np

    from aigc_jax.inference.run import load
    from aigc_jax.media import images, plots, sample_files
    from aigc_jax.media.provenance_marks import origin
    from aigc_jax.metrics.two_sample_test import told
    from aigc_jax.utils.disk import disk_errors

    require(
        not args.out or Path(args.out).suffix in (".png", ".npy", ".txt", ".mid"),
        f"--out={args.out} must end in .png or .npy, for text in .txt, for tunes in .mid",
    )
    run = load(args.workdir, args.checkpoint)
    if run.programs.method.language is not None and args.what is None and args.label is None:
        return write(run, args)
    for flag, usual in WRITING.items():
        require(
            getattr(args, flag) == usual,
            f"--{flag} is for text that is written after a prompt, and the run's sampler "
            f"{args.what or run.default_sampler!r} writes none",
        )
    if run.is_text:
        return sample_texts(run, args)
    args.what = args.what or run.default_sampler
    out = Path(args.out) if args.out else default_file(run, args)
    require(
        out.suffix not in (".txt", ".mid"),
        f"--out={args.out} is for text, and config.method = {run.config.method!r} draws none",
    )
    samplers = run.programs.method.samplers
    of_prior = ("neighbours", "separability") if "prior" in samplers else ()
    choose(dict.fromkeys((*samplers, *of_prior)), args.what, "what")
    beside = args.what == "neighbours"
    if args.what in samplers and out.suffix != ".npy":
        shape = run.sample_shape(args.what)
        require(
            images.is_drawable(shape, run.spec),
            f"--what={args.what} draws arrays {list(shape)}, which are no {run.spec.kind} "
            f"{list(run.spec.shape)} to look at: save them by --out={args.what}.npy",
        )
    if not args.out:
        make_folder(out.parent)
    if args.what == "separability":
        require(
            run.spec.kind == "image",
            f"--what=separability is for pictures, and the run's data are {run.spec.kind}",
        )
        samples, scores = run.separated(args.num, args.seed, args.label)
    else:
        samples = (
            run.neighbours(args.num, args.seed, args.label)
            if beside
            else run.draw(args.num, args.what, args.seed, label=args.label)
        )
    made = origin(run.stored["hash"], run.checkpoint_hash(), run.step, args.seed)
    with disk_errors(out):
        if out.suffix == ".npy":
            np.save(out, samples)
        elif args.what == "separability":
            plots.save_separability(out, samples, scores, told(scores), made)
        else:
            sample_files.save_samples(
                out,
                samples,
                run.spec,
                made,
                None if beside or args.label is not None else run.columns(args.what),
            )
    print_text(out)
    return 0


def default_file(run, args) -> Path:
    """The file of samples that --out does not name, in the run's directory."""
    parts = [args.what, f"step{run.step:08d}", f"seed{args.seed}"]
    parts += [f"class{args.label}"] * (args.label is not None)
    parts += [f"num{args.num}"] * (args.num is not None)
    return run.dir / "sampled" / f"{'-'.join(parts)}.png"


def make_folder(folder: Path):
    """The folder of such files, beneath a run."""
    from aigc_jax.utils.disk import disk_errors

    found = folder if folder.is_dir() else folder.parent
    require(
        os.access(found, os.W_OK),
        f"{found} cannot be written: name a file for the samples, such as --out=samples.png",
    )
    with disk_errors(folder):
        folder.mkdir(exist_ok=True)


def sample_texts(run, args):
    """Samples of a sampler of a model of text: to the terminal, to a .txt, or as tokens
    to a .npy.
    """
    import numpy as np

    from aigc_jax.media import sample_files
    from aigc_jax.media.provenance_marks import origin
    from aigc_jax.utils.disk import disk_errors

    out = Path(args.out) if args.out else None
    require(
        out is None or out.suffix in (".txt", ".npy"),
        f"--out={args.out} must end in .txt, or in .npy for tokens, for the run's samples are text",
    )
    tokens = run.draw(args.num, args.what or run.default_sampler, args.seed, label=args.label)
    texts = [run.tokenizer.text(row) for row in tokens]
    if out is None:
        print_text("\n----\n".join(texts))
        return 0
    with disk_errors(out):
        if out.suffix == ".npy":
            np.save(out, tokens)
        else:
            sample_files.save_texts(
                out, texts, origin(run.stored["hash"], run.checkpoint_hash(), run.step, args.seed)
            )
    print_text(out)
    return 0


def write(run, args):
    """Text after prompts: streamed to the terminal, or several at once, to the terminal
    or a file.
    """
    from aigc_jax.inference import generation
    from aigc_jax.media import music, sample_files
    from aigc_jax.media.provenance_marks import origin
    from aigc_jax.methods.decoding import Choice, check_range
    from aigc_jax.utils.disk import disk_errors

    choice = Choice(args.temperature, args.top_k, args.top_p, args.min_p, args.repetition)
    require(
        not (args.prompt and args.prompt_file),
        "--prompt and --prompt_file are two ways to say one thing: give one",
    )
    if args.interactive:
        generation.converse(run, args.tokens, choice, args.seed, print_warning)
        return 0
    prompt = generation.read_prompt(args.prompt_file) if args.prompt_file else args.prompt
    check_range("num", 1 if args.num is None else args.num, 1, generation.MOST, whole=True)
    if run.programs.method.language.begin is not None:
        print_text(
            "\n".join(
                generation.completions(
                    run, prompt.split("\n"), args.tokens, choice, args.seed, print_warning
                )
            )
        )
        return 0
    prompt = generation.asked(run, prompt)
    if not args.out and args.num in (None, 1):
        generation.stream_to(
            sys.stdout,
            prompt,
            generation.continuations(run, [prompt], args.tokens, choice, args.seed, print_warning),
        )
        return 0
    texts = [
        prompt + t
        for t in generation.texts(
            run, [prompt] * (args.num or 1), args.tokens, choice, args.seed, print_warning
        )
    ]
    if args.out:
        out = Path(args.out)
        require(
            out.suffix in (".txt", ".mid"),
            f"--out={args.out} must end in .txt, or for tunes in ABC notation in .mid, for "
            "the run writes text",
        )
        with disk_errors(out):
            sample_files.save_texts(
                out.with_suffix(".txt"),
                texts,
                origin(run.stored["hash"], run.checkpoint_hash(), run.step, args.seed),
            )
            tunes = music.write_midi(out.with_suffix(""), texts) if out.suffix == ".mid" else []
        print_text("\n".join(map(str, [out.with_suffix(".txt"), *tunes])))
    else:
        print_text("\n----\n".join(texts))
    return 0
