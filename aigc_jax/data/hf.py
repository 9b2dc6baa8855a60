"""Data sets of Hugging Face's library `datasets` that `save_to_disk` wrote: images,
texts or pairs of texts, memory-mapped.

The library itself is not needed: it would open files and URLs that the data name, and
memory that damaged data point to. Its directories consist of JSON and of Arrow files.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data import arrow, files, pairs, rows, streamed_texts
from aigc_jax.data.dataset import Dataset
from aigc_jax.data.fingerprints import hash_files
from aigc_jax.data.npz import convert_labels
from aigc_jax.utils.document_shapes import DamageError, check_json_shape, parse_json_object
from aigc_jax.utils.errors import UserError, format_suggestion, join_names, require
from aigc_jax.utils.files import is_regular_file, open_regular_file
from aigc_jax.utils.memory import require_fits_memory

if TYPE_CHECKING:
    import pyarrow

# Split -> its names in a DatasetDict.
SPLITS = dict(train=("train",), valid=("validation", "valid", "val", "dev"), test=("test",))
STATE = {"_data_files": [{"filename": str, ...: object}], ...: object}
INFO = {"features?": ({...: object}, None), "license?": object, ...: object}


class SavedSplit(NamedTuple):
    """A data set on disk, or a split of one."""

    table: "pyarrow.Table"
    features: dict[str, Any]  # column -> its type, as `datasets` writes it to JSON
    licence: str
    files: list[Path]


class Columns(NamedTuple):
    """The columns of the inputs and of the labels or targets; "": none."""

    kind: str  # "images", "texts" or "pairs"
    input: str
    target: str


def load_saved_dataset(config: ConfigDict, data_dir: str, _download: bool) -> Dataset:
    """Load the directory data.path that `datasets.Dataset.save_to_disk` or
    `datasets.DatasetDict.save_to_disk` wrote.

    The inputs are the column data.input_column: by default the only one of images,
    else `text`, else the only one of strings. data.target_column is the class of
    images (by default the only one of classes, or of integers if called `label`), or
    the targets of pairs of texts. Splits are train, validation and test; a missing
    validation split is a tenth of train, and a single split is divided by data.split.
    """
    root = files.find_config_directory(
        config.path, data_dir, config.name, "a data set that `save_to_disk` wrote"
    )
    splits = open_splits(root)
    first = splits["train"]
    columns = choose_columns(config, first)
    for name, split in splits.items():
        for column in filter(None, (columns.input, columns.target)):
            require(
                column in split.table.column_names
                and split.table.schema.field(column).type == first.table.schema.field(column).type,
                f"{root}: the column {column!r} of {name} differs from that of train",
            )
    about = dict(source=str(root), licence=first.licence or "none stated")
    paths = [path for split in splits.values() for path in split.files]
    fingerprint = hash_files([p for p in [root / "dataset_dict.json"] if p.exists()] + paths)
    holds = f"config.data.path = {config.path!r} holds {columns.kind}"
    if columns.kind == "images":
        rows.refuse_keys(config, (*rows.OF_TEXTS, "prefix_lm"), "texts", holds)
        return load_images(config, splits, columns, fingerprint, about)
    rows.refuse_keys(config, rows.OF_IMAGES, "images", holds)
    if columns.kind == "pairs":
        return load_pairs(config, splits, columns, about)
    rows.refuse_keys(
        config, ("prefix_lm",), "pairs", f"{holds}: set config.data.target_column to the targets"
    )
    texts = {
        name: arrow.Column(split.table.column(columns.input), f"{root}: {columns.input} of {name}")
        for name, split in splits.items()
    }
    return streamed_texts.make_streamed_window_dataset(
        config, texts, f"{fingerprint} {columns.input}", about
    )


def open_splits(root: Path) -> dict[str, SavedSplit]:
    """Return {"train": its data set, "valid": ..., "test": ...} of a directory; a data
    set without splits is train. Other splits are not read.
    """
    if is_regular_file(root / "state.json"):
        return dict(train=open_split(root))
    require(
        is_regular_file(root / "dataset_dict.json"),
        f"{root} has neither state.json nor dataset_dict.json: write it by "
        "datasets.load_dataset(...).save_to_disk(DIR)",
    )
    names = read_json(root / "dataset_dict.json", {"splits": [str], ...: object})["splits"]
    found = {
        split: next((name for name in known if name in names), "")
        for split, known in SPLITS.items()
    }
    if len(names) == 1 and Path(names[0]).name == names[0]:
        found = dict(train=names[0])
    require(found["train"], f"{root} has no split train; it has {join_names(names) or 'none'}")
    return {split: open_split(root / name) for split, name in found.items() if name}


def open_split(directory: Path) -> SavedSplit:
    """Return the data set in the directory of one split."""
    state = read_json(directory / "state.json", STATE)
    info = read_json(directory / "dataset_info.json", INFO)
    names = [file["filename"] for file in state["_data_files"]]
    require(names, f"{directory} has no data files")
    require(
        not state.get("_indices_data_files"),
        f"{directory} has row indices in files of their own: save it again by save_to_disk",
    )
    for name in names:
        require(
            Path(name).name == name and name not in ("", ".", ".."),
            f"{directory / 'state.json'} names a file outside of its directory: {name!r}",
        )
    paths = [directory / name for name in names]
    table = arrow.open_table(paths)
    return SavedSplit(
        table,
        info.get("features") or {},
        info["license"] if isinstance(info.get("license"), str) else "",
        [*paths, directory / "state.json", directory / "dataset_info.json"],
    )


def read_json(path: Path, shape: Any) -> dict:
    """Return the JSON object in a file, of a shape as in `document_shapes`; raise a
    UserError where the file is damaged.
    """
    with open_regular_file(path) as f:
        content = f.read()
    try:
        value = parse_json_object(content)
        check_json_shape(value, shape, "it")
    except (DamageError, RecursionError) as e:
        raise UserError(f"{path} is damaged: it {e}") from None
    return value


def choose_columns(config: ConfigDict, split: SavedSplit) -> Columns:
    """Return the columns that the config names, or that are unambiguous; raise a
    UserError that lists the columns otherwise.
    """
    kinds = {name: find_column_kind(split, name) for name in split.table.column_names}
    described = ", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "none"
    for key in ("input_column", "target_column"):
        require(
            config[key] in ("", *kinds),
            f"config.data.{key} = {config[key]!r} is none of the columns {described}"
            f"{format_suggestion(config[key], kinds)}",
        )
    name = config.input_column or find_input_column(kinds, described)
    require(
        kinds[name] in ("image", "string"),
        f"config.data.input_column = {name!r} must be a column of images or strings; the "
        f"columns are {described}",
    )
    wanted = ("string",) if kinds[name] == "string" else ("class", "integer")
    target = config.target_column or find_class_column(kinds, described, kinds[name])
    require(
        not target or kinds[target] in wanted and target != name,
        f"config.data.target_column = {target!r} must be another column of "
        f"{' or '.join(wanted)} values for the inputs {name}; the columns are {described}",
    )
    if kinds[name] == "image":
        return Columns("images", name, target)
    return Columns("pairs" if target else "texts", name, target)


def find_input_column(kinds: dict[str, str], described: str) -> str:
    """Return the only column of images, else `text`, else the only column of strings;
    raise a UserError where none is.

    Args:
      kinds: {column: `find_column_kind`}.
      described: the columns, for error messages.
    """
    images, texts = (
        [name for name, kind in kinds.items() if kind == wanted] for wanted in ("image", "string")
    )
    found = images or [name for name in texts if name == "text"] or texts
    require(
        len(found) == 1,
        f"config.data.input_column = '' must name the images or texts among the columns "
        f"{described}",
    )
    return found[0]


def find_class_column(kinds: dict[str, str], described: str, input_kind: str) -> str:
    """Return the only column of classes, or of integers if it is called `label`; ""
    for none, and for texts. The arguments are those of `find_input_column`.
    """
    if input_kind != "image":
        return ""
    classes = [name for name, kind in kinds.items() if kind == "class"]
    require(
        len(classes) < 2,
        f"config.data.target_column = '' must name the class among the columns {described}",
    )
    return next(iter(classes), "label" if kinds.get("label") == "integer" else "")


def find_column_kind(split: SavedSplit, name: str) -> str:
    """Return "image", "class", "integer" or "string", or the Arrow type of a column of
    another kind.
    """
    types = arrow.import_pyarrow().types
    kind = split.table.schema.field(name).type
    feature = split.features.get(name)
    declared = feature.get("_type") if isinstance(feature, dict) else ""
    is_binary = lambda t: types.is_binary(t) or types.is_large_binary(t)
    if declared == "Image" and types.is_struct(kind):
        index = kind.get_field_index("bytes")  # -1: missing
        if index >= 0 and is_binary(kind.field(index).type):
            return "image"
    if types.is_integer(kind) or types.is_boolean(kind):
        return "class" if declared == "ClassLabel" else "integer"
    if types.is_string(kind) or types.is_large_string(kind):
        return "string"
    return str(kind)[:80]


def load_images(
    config: ConfigDict,
    splits: dict[str, SavedSplit],
    columns: Columns,
    fingerprint: str,
    about: dict,
) -> Dataset:
    """Return the data set of images, with labels if `columns` names them."""
    where = lambda column, name: f"{about['source']}: {column} of {name}"
    images = {
        name: arrow.Column(
            split.table.column(columns.input), where(columns.input, name), field="bytes"
        )
        for name, split in splits.items()
    }
    labels: dict[str, np.ndarray] = {}
    for name, split in splits.items() if columns.target else ():
        shown = where(columns.target, name)
        values = arrow.Column(split.table.column(columns.target), shown).read_integers()
        labels[name] = convert_labels(shown, values, len(images[name]))
    names = find_class_names(splits["train"], columns.target)
    for name, label in labels.items():
        require(
            not names or int(label.max(initial=0)) < len(names),
            f"{where(columns.target, name)} has label {int(label.max(initial=0))}, and "
            f"{len(names)} classes are named",
        )
    return rows.make_decoded_image_dataset(
        config, images, labels, f"{fingerprint} {columns.input}", about, names
    )


def find_class_names(split: SavedSplit, column: str) -> list[str]:  # [] if not named
    """Return the names of the classes of a column."""
    feature = split.features.get(column)
    names = feature.get("names") if isinstance(feature, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return []
    return names if len(set(names)) == len(names) else []


def load_pairs(
    config: ConfigDict, splits: dict[str, SavedSplit], columns: Columns, about: dict
) -> Dataset:
    """Return the data set of pairs, which are in memory; divided by the hash of the
    source where the data have no splits of their own.
    """
    tenths = streamed_texts.choose_tenths(config, splits)
    out: dict[str, list[tuple[str, str]]] = {}
    for name, split in splits.items():
        table = split.table.select([columns.input, columns.target])
        require_fits_memory(2 * table.nbytes, f"{about['source']}: the pairs of {name}")
        source, target = (
            arrow.Column(table.column(c), f"{about['source']}: {c} of {name}")
            for c in (columns.input, columns.target)
        )
        every = np.arange(len(source))
        found = zip(source.read_rows(every), target.read_rows(every), strict=True)
        for pair in found:
            own = tenths[files.hash_decile(pair[0])] if name == "train" else name
            out.setdefault(own, []).append(pair)
    order = [name for name in ("train", "valid", "test") if name in out]
    return pairs.make_pair_dataset(config, {name: out[name] for name in order}, about)
