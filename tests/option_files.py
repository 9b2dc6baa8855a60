"""The small data sets of the option tests."""

import io
import itertools
from pathlib import Path

import numpy as np
from options import FILES, npz_file

from aigc_jax.data import schema as data_schema

TEXTS = [
    f"Text {i}: the {['quick', 'lazy', 'brown'][i % 3]} fox, {i * i} times." for i in range(120)
]


def write_files():
    """Write the data sets of the rows, once per process."""
    if (FILES / "pairs.tsv").exists():
        return
    from ml_collections import ConfigDict
    from PIL import Image

    from aigc_jax.data import tokenizers
    from aigc_jax.data.tokenizers import huggingface

    random = np.random.RandomState(0)
    images, label = (
        random.randint(0, 256, (120, 8, 8, 1)).astype(np.uint8),
        np.arange(120, dtype=np.int32) % 3,
    )
    for span, layout in itertools.product(
        *(key.allowed for key in data_schema.DATA if key.name in ("data.range", "data.layout"))
    ):
        low, _, high = span.partition("..")
        x = (
            images
            if span in ("auto", "0..255")
            else (images / 255 * (float(high) - float(low)) + float(low)).astype(np.float32)
        )
        np.savez(
            npz_file(span, layout),
            x=x.transpose(0, 3, 1, 2) if layout == "NCHW" else x,
            label=label,
        )
    for i, (image, k) in enumerate(zip(images, label, strict=True)):
        path = FILES / "folder" / f"class_{k}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    (FILES / "texts").mkdir()
    lines = [
        f"Line {i}: the {['quick', 'lazy', 'brown'][i % 3]} fox, {i * i} times\n" for i in range(60)
    ]
    (FILES / "texts" / "one.txt").write_text("".join(lines))
    tokenizer = tokenizers.build((), ConfigDict(data_schema.DEFAULTS))
    huggingface.write(FILES, tokenizer)
    (FILES / "tokens").mkdir()
    ids = tokenizer.encode("".join(lines)).astype(np.uint16)
    for name, part in (("train", ids[:1200]), ("val", ids[1200:1400]), ("test", ids[1400:1600])):
        np.save(FILES / "tokens" / f"{name}.npy", part)
    prepare_records(FILES / "tfds", images[..., 0], label)
    (FILES / "pairs.tsv").write_text("".join(f"{n}\t{str(n)[::-1]}\n" for n in range(1000, 1200)))
    write_saved_datasets(images[..., 0], label)
    write_record_files(images[..., 0], label)


def prepare_records(folder: Path, images, label):
    """Write images in the format of tensorflow-datasets."""
    import tensorflow_datasets as tfds
    from PIL import Image

    class Made(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        name = "made"
        pkg_dir_path = folder

        def _info(self):
            features = dict(
                image=tfds.features.Image(shape=(8, 8, 1)),
                label=tfds.features.ClassLabel(num_classes=3),
            )
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {
                "train": self._generate_examples(0, 100),
                "test": self._generate_examples(100, 120),
            }

        def _generate_examples(self, low, high):
            for i in range(low, high):
                yield i, dict(image=Image.fromarray(images[i]), label=int(label[i]))

    folder.mkdir()
    Made(data_dir=folder, file_format="array_record").download_and_prepare()


def encode_png(image: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def write_saved_datasets(images, label):
    """Write images, texts and pairs by `save_to_disk` of the library `datasets`."""
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b", "c"])
    )
    rows = dict(
        image=[dict(bytes=encode_png(image), path=None) for image in images], label=label.tolist()
    )
    saved = datasets.Dataset.from_dict(rows, features=features)
    saved.save_to_disk(FILES / "hf_images", num_shards=2)
    parts = dict(train=TEXTS[:80], validation=TEXTS[80:100], test=TEXTS[100:])
    datasets.DatasetDict(
        {name: datasets.Dataset.from_dict(dict(text=texts)) for name, texts in parts.items()}
    ).save_to_disk(FILES / "hf_texts")
    numbers = [str(n) for n in range(1000, 1200)]
    pairs = dict(text=numbers, b=[number[::-1] for number in numbers])
    datasets.Dataset.from_dict(pairs).save_to_disk(FILES / "hf_pairs")


def write_record_files(images, label):
    """Write images with labels, and texts, as array_record files."""
    write_records(FILES / "image_records" / "train-00000-of-00002.array_record", images[:60])
    write_records(FILES / "image_records" / "train-00001-of-00002.array_record", images[60:100])
    write_records(FILES / "image_records" / "test.array_record", images[100:])
    np.save(FILES / "image_records" / "train_labels.npy", label[:100])
    np.save(FILES / "image_records" / "test_labels.npy", label[100:])
    write_records(FILES / "text_records" / "train.array_record", TEXTS)


def write_records(path: Path, values):
    """Write images as PNG, texts as UTF-8 and bytes unchanged."""
    from array_record.python.array_record_module import ArrayRecordWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for value in values:
        encoded = value.encode() if isinstance(value, str) else value
        writer.write(encoded if isinstance(encoded, bytes) else encode_png(encoded))
    writer.close()
