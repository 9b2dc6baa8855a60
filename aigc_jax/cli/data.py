"""Find, fetch and verify a data set.

Says where it is, its size, licence and checksums. With --out, examples are drawn.
"""

from pathlib import Path

from aigc_jax.core import config as configs
from aigc_jax.core.keys import DATA_KEYS
from aigc_jax.utils.errors import UserError, require
from aigc_jax.utils.terminal import print_text


def add_arguments(parser):
    """Add the data set's name, where its files lie and how they are to be read."""
    parser.add_argument(
        "--name", required=True, metavar="NAME", help="a data set; a wrong name lists them"
    )
    parser.add_argument(
        "--path",
        default="",
        metavar="FILE|DIR",
        help="npz: the file; folder: a directory of pictures; text: a file, directory or glob",
    )
    parser.add_argument(
        "--tokenizer",
        default="",
        metavar="NAME",
        help="texts: bytes, characters, words, chinese_words, bpe, or file (default: characters)",
    )
    parser.add_argument(
        "--tokenizer_path",
        default="",
        metavar="PATH",
        help="of --tokenizer=file: a tokenizer.json, a run or a GPT-2 directory",
    )
    parser.add_argument(
        "--size",
        type=int,
        default=configs.DATA["size"],
        metavar="N",
        help="folder: pixels a side (default: 64)",
    )
    parser.add_argument(
        "--colour",
        default=configs.DATA["colour"],
        metavar="rgb|grey",
        help="folder: what to convert to (default: rgb)",
    )
    parser.add_argument(
        "--range",
        default=configs.DATA["range"],
        metavar="0..255|0..1|-1..1",
        help="npz: values of black and white (default: recognised)",
    )
    parser.add_argument(
        "--layout",
        default=configs.DATA["layout"],
        metavar="NHWC|NCHW",
        help="npz: the axes of x (default: recognised)",
    )
    parser.add_argument(
        "--data_dir",
        default="",
        metavar="DIR",
        help="where to look first (else $AIGC_DATA_DIR, else ~/tensorflow_datasets)",
    )
    parser.add_argument("--download", action="store_true", help="fetch what is missing")
    parser.add_argument(
        "--out",
        default="",
        metavar="FILE",
        help="images and points: draw examples into this .png (default: no figure)",
    )


def run(args, overrides) -> int:
    """Load the data set, print what it holds and where it comes from, and draw some
    examples; return the exit code 0. A UserError where a file is missing or damaged.
    """
    import numpy as np
    from ml_collections import ConfigDict

    from aigc_jax.data import load
    from aigc_jax.data.order import fixed_order
    from aigc_jax.media import sample_files
    from aigc_jax.utils.disk import disk_errors

    is_text = "tokenizer" in DATA_KEYS.get(args.name, ())
    usual = "characters" if is_text else configs.DATA["tokenizer"]
    section = ConfigDict(
        configs.DATA
        | dict(
            name=args.name,
            path=args.path,
            size=args.size,
            colour=args.colour,
            tokenizer=args.tokenizer or usual,
            tokenizer_path=args.tokenizer_path,
            range=args.range,
            layout=args.layout,
        )
    )
    try:
        if args.name in DATA_KEYS:
            configs.check_data({f"data.{key}": value for key, value in section.items()})
        dataset = load(section, args.data_dir, args.download)
    except UserError as e:  # its keys are flags here
        raise UserError(e.args[0].replace("config.data.", "--")) from e
    require(
        not args.out or dataset.tokenizer is None,
        f"--out={args.out} draws images and points, and {args.name} is text",
    )
    sizes = ", ".join(f"{count:,} {name}" for name, (_, count) in dataset.splits.items())
    bytes_ = sum(a.nbytes for a in dataset.arrays.values())
    print_text(
        f"{args.name}: {sizes}; {dataset.spec.kind} {list(dataset.spec.shape)}, "
        f"{dataset.spec.classes or 'no'} classes, "
        f"{bytes_ / 1e6:,.1f} MB"
    )
    print_text(f"lies in {dataset.about['source']}\nlicence: {dataset.about['licence']}")
    if "values" in dataset.about:
        print_text(f"read as {dataset.about['values']}")
    if classes := list(dataset.about.get("classes", {}).items()):
        print_text(
            "classes: "
            + ", ".join(f"{name} {count:,}" for name, count in classes[:12])
            + (", ..." if len(classes) > 12 else "")
        )
    files = list(dataset.about.get("files", {}).items())
    for name, checksum in files[:20]:
        print_text(f"SHA-256 {checksum}  {name}")
    if len(files) > 20:
        print_text(f"... and {len(files) - 20:,} files more")
    for name, count in dataset.about.get("holds", {}).items():
        print_text(f"{count:>15,} tokens  {name}")
    if dataset.tokenizer is not None:
        return describe_text(dataset)
    if not args.out:
        return 0
    out = Path(args.out)
    num = 64 if dataset.spec.kind == "image" else 2000
    start, count = dataset.splits["train"]
    rows = start + fixed_order(np.arange(min(num, count)), count)
    samples = dataset.take(dataset.arrays, rows)["x"]
    with disk_errors(out):
        sample_files.save_samples(
            out, samples, dataset.spec, dict(Software="aigc_jax", data=args.name)
        )
    print_text(f"contact sheet: {out}")
    return 0


def describe_text(dataset):
    """How a text was tokenized, and how it begins."""
    import numpy as np

    about = dataset.about["text"]
    texts = (
        f"{about['documents']:,} texts, {about['characters']:,} characters; "
        if "documents" in about
        else ""
    )
    each = f", {about['characters_per_token']:.2f} characters each" if texts else ""
    print_text(
        f"{texts}{about['tokens']:,} tokens of {dataset.spec.vocabulary:,} "
        f"({about['tokenizer']}){each}; loses {about['loses']}"
    )
    for row in dataset.take(dataset.arrays, np.arange(min(4, dataset.spec.n_train)))["tokens"]:
        print_text(f"  {dataset.tokenizer.decode(row)!r}")
    return 0
