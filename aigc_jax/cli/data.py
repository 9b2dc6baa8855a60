"""Find, download and verify a data set.

Prints its location, size, licence and checksums. With --out, plots examples.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_jax.data import schema as data_schema
from aigc_jax.utils.errors import UserError, require
from aigc_jax.utils.quantities import format_count, format_size
from aigc_jax.utils.terminal import print_text

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def add_arguments(parser: ArgumentParser) -> None:
    """Add the data set's name, the location of its files and how to read them."""
    parser.add_argument(
        "--name", required=True, metavar="NAME", help="a data set; an unknown name lists all"
    )
    parser.add_argument(
        "--path",
        default="",
        metavar="FILE|DIR",
        help="npz: the file; folder, hf, array_record: a directory; text: a file, a directory or "
        "a glob",
    )
    parser.add_argument(
        "--tokenizer",
        default="",
        metavar="NAME",
        help="texts: bytes, characters, words, chinese_words, bpe, or file (default: characters; "
        "hf, array_record: bytes)",
    )
    parser.add_argument(
        "--tokenizer_path",
        default="",
        metavar="PATH",
        help="with --tokenizer=file: a tokenizer.json, a run or a Hugging Face directory",
    )
    parser.add_argument(
        "--size",
        type=int,
        default=data_schema.DEFAULTS["size"],
        metavar="N",
        help="folder, hf, array_record: image size in pixels per side (default: 64)",
    )
    parser.add_argument(
        "--colour",
        default=data_schema.DEFAULTS["colour"],
        metavar="rgb|grey",
        help="folder, hf, array_record: colour mode of the converted images (default: rgb)",
    )
    parser.add_argument(
        "--input_column",
        default="",
        metavar="NAME",
        help="hf: the column of images or texts (default: the only one)",
    )
    parser.add_argument(
        "--target_column",
        default="",
        metavar="NAME",
        help="hf: the column of classes (default: the only one) or of the targets of pairs",
    )
    parser.add_argument(
        "--range",
        default=data_schema.DEFAULTS["range"],
        metavar="0..255|0..1|-1..1",
        help="npz: pixel values of black and white (default: inferred)",
    )
    parser.add_argument(
        "--layout",
        default=data_schema.DEFAULTS["layout"],
        metavar="NHWC|NCHW",
        help="npz: the axes of x (default: inferred)",
    )
    parser.add_argument(
        "--data_dir",
        default="",
        metavar="DIR",
        help="directory to search first (default: $AIGC_DATA_DIR, else ~/tensorflow_datasets)",
    )
    parser.add_argument("--download", action="store_true", help="download missing files")
    parser.add_argument(
        "--out",
        default="",
        metavar="FILE",
        help="images and points: plot examples to this .png (default: no figure)",
    )


def run(args: Namespace, overrides: dict[str, str]) -> int:  # the exit code
    """Load the data set, print its contents and origin, and plot some examples; return
    exit code 0.

    Raises:
      UserError: a file is missing or damaged.
    """
    from aigc_jax.data import load
    from aigc_jax.training import config as configs

    section = make_data_section(args)
    try:
        if args.name in data_schema.READ_BY:
            configs.reject_unread_data_keys(
                {f"data.{key}": value for key, value in section.items()}
            )
        dataset = load(section, args.data_dir, args.download)
    except UserError as e:  # name the flags instead of the config keys
        raise UserError(e.args[0].replace("config.data.", "--")) from e
    require(
        not args.out or dataset.tokenizer is None,
        f"--out={args.out} draws images and points, and {args.name} is text",
    )
    print_dataset(args.name, dataset)
    if dataset.tokenizer is not None:
        print_tokenization(dataset)
    if args.out:
        plot_examples(dataset, args.name, Path(args.out))
    return 0


def make_data_section(args: Namespace) -> "ConfigDict":
    """Return the config section `data` that the flags specify."""
    from ml_collections import ConfigDict

    read = data_schema.READ_BY.get(args.name, ())
    is_text = "tokenizer" in read and "size" not in read  # not of data sets of any kind
    usual = "characters" if is_text else data_schema.DEFAULTS["tokenizer"]
    images = ("size", "colour", "range", "layout")
    flags = ("name", "path", "input_column", "target_column", "tokenizer_path", *images)
    values = {flag: getattr(args, flag) for flag in flags}
    return ConfigDict(data_schema.DEFAULTS | values | dict(tokenizer=args.tokenizer or usual))


def print_dataset(name: str, dataset: Any) -> None:
    """Print the sizes, location, licence, classes and files of a data set."""
    sizes = ", ".join(f"{count:,} {name}" for name, (_, count) in dataset.splits.items())
    num_bytes = sum(a.nbytes for a in dataset.arrays.values())
    print_text(
        f"{name}: {sizes}; {dataset.spec.kind} {list(dataset.spec.shape)}, "
        f"{dataset.spec.classes or 'no'} classes, {format_size(num_bytes)}"
    )
    about = dataset.about
    print_text(f"location: {about['source']}\nlicence: {about['licence']}")
    if "values" in about:
        print_text(f"read as {about['values']}")
    if classes := list(about.get("classes", {}).items()):
        counts = ", ".join(f"{name} {count:,}" for name, count in classes[:12])
        print_text(f"classes: {counts}" + (", ..." if len(classes) > 12 else ""))
    files = list(about.get("files", {}).items())
    for file, checksum in files[:20]:
        print_text(f"SHA-256 {checksum}  {file}")
    if len(files) > 20:
        print_text(f"... and {len(files) - 20:,} files more")
    for file, count in about.get("holds", {}).items():
        print_text(f"{count:>15,} tokens  {file}")


def plot_examples(dataset: Any, name: str, out: Path) -> None:
    """Plot training examples of `dataset`, 64 images or 2,000 points in a fixed random
    order, to the file `out`, whose metadata has the data set's `name`.
    """
    import numpy as np

    from aigc_jax.data.order import permute_fixed
    from aigc_jax.media import sample_files
    from aigc_jax.media.sheets import Annotations
    from aigc_jax.utils.disk import convert_disk_errors

    num = 64 if dataset.spec.kind == "image" else 2000
    start, count = dataset.splits["train"]
    rows = start + permute_fixed(np.arange(min(num, count)), count)
    samples = dataset.take(dataset.arrays, rows)["x"]
    about = dict(Software="aigc_jax", data=name)
    title = Annotations(f"{name}, {format_count(len(samples), 'training example')}")
    with convert_disk_errors(out):
        sample_files.save_samples_png(out, samples, dataset.spec, about, annotations=title)
    print_text(f"contact sheet: {out}")


def print_tokenization(dataset: Any) -> None:
    """Print the tokenization of a text data set and its first sequences."""
    import numpy as np

    about = dataset.about["text"]
    texts = (
        f"{format_count(about['documents'], 'text')}, "
        f"{format_count(about['characters'], 'character')}; "
        if "documents" in about
        else ""
    )
    each = f", {about['characters_per_token']:.2f} characters each" if texts else ""
    print_text(
        f"{texts}{about['tokens']:,} tokens of {dataset.spec.vocabulary:,} "
        f"({about['tokenizer']}, {dataset.tokenizer.kind}){each}; loses {about['loses']}"
    )
    if "difference" in about:
        print_text(about["difference"])
    for row in dataset.take(dataset.arrays, np.arange(min(4, dataset.spec.n_train)))["tokens"]:
        print_text(f"  {dataset.tokenizer.decode(row)!r}")
