"""Missing data: the error names the data set, the places that were searched, and one
command or file that remedies it.
"""

import pytest
from tiny_configs import section

from aigc_jax import data
from aigc_jax.cli import main as cli
from aigc_jax.data import downloads
from aigc_jax.data.schema import READ_BY
from aigc_jax.utils.errors import UserError

# These are part of Python or scikit-learn, or computed.
WITHOUT_FILES = {"digits", "ring", "grid", "pydoc", "stdlib", "docstrings"}
GET = "get it with: aigc "


@pytest.fixture(autouse=True)
def empty_directories(tmp_path, monkeypatch):
    """No data set is found, and none can be downloaded."""
    for variable in ("AIGC_DATA_DIR", "HOME"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.chdir(tmp_path)


def error_of(name, **keys):
    with pytest.raises(UserError) as error:
        data.load(section(name, **keys))
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def searched_places(tmp_path, directory):
    roots = (tmp_path / "AIGC_DATA_DIR", tmp_path / "HOME" / "tensorflow_datasets")
    return f"(searched {', '.join(str(root / directory) for root in roots)})"


@pytest.mark.parametrize("name", sorted(set(data.DATASETS) - WITHOUT_FILES))
def test_missing_data_set_names_places_and_one_remedy(name, tmp_path):
    """A public data set is downloaded by a command or copied from a published place; a
    user's own is what config.data.path names.
    """
    if "path" in READ_BY[name]:
        nothing = error_of(name)
        assert "config.data.path = '' must name a" in nothing and repr(name) in nothing
        wrong = error_of(name, path="absent")
        assert wrong.startswith("config.data.path = 'absent' is n")
        assert f"for config.data.name = {name!r}" in wrong
        return
    message = error_of(name)
    directory = message.split(" not found (searched ")[0].split(": ")[-2].split()[-1]
    assert name in message and searched_places(tmp_path, directory) in message
    own = tmp_path / "AIGC_DATA_DIR" / directory
    remedies = [f"{GET}data --name=", f"copy into {own}: "]
    assert sum(remedy in message for remedy in remedies) == 1, message
    if remedies[1] in message:
        assert "https://" in message.split(remedies[1])[1]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("docstrings", "stdlib")))
        for name in sorted(WITHOUT_FILES)
    ],
)
def test_data_sets_without_files_always_load(name):
    assert data.load(section(name)).spec.n_train > 0


@pytest.mark.parametrize(
    "name",
    [
        *("mnist", "fashion_mnist", "binarized_mnist", "stacked_mnist", "cifar10", "shakespeare"),
        *("multi30k", "nottingham", "tang_poems"),
    ],
)
def test_suggested_command_downloads_the_data_set(name, monkeypatch, capsys):
    words = error_of(name).split(GET)[1].split()
    began = []

    def refuse(directory, *_):
        began.append(directory)
        raise UserError(f"{directory}: no network")

    monkeypatch.setattr(downloads, "transfer_files", refuse)
    assert cli.main(words) == 1
    assert len(began) == 1 and began[0] in capsys.readouterr().err


def test_training_on_missing_data_is_a_one_line_error(tmp_path, capsys):
    words = ["--config=gan_digits", "--config.data.name=mnist", f"--workdir={tmp_path / 'run'}"]
    assert cli.main(["train", *words]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert error.startswith("error: mnist: train-images-idx3-ubyte.gz not found (searched ")
    assert error.rstrip().endswith(" data --name=mnist --download")
    assert not (tmp_path / "run").exists()


def test_missing_file_of_a_data_set_names_the_remedy(tmp_path):
    folder = tmp_path / "AIGC_DATA_DIR" / "multi30k"
    folder.mkdir()
    (folder / "train.en").write_text("a\n")
    message = error_of("multi30k")
    assert message.startswith(f"multi30k: train.de.gz is missing in {folder}; {GET}data --name=")


def test_misspelt_paths_suggest_the_nearest_name(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "arrays.npz").touch()
    (tmp_path / "AIGC_DATA_DIR" / "flowers" / "1.0.0").mkdir(parents=True)
    (tmp_path / "AIGC_DATA_DIR" / "flowers" / "1.0.0" / "dataset_info.json").touch()
    assert error_of("folder", path="pictrues").endswith("; did you mean 'pictures'?")
    assert error_of("npz", path="array.npz").endswith("; did you mean 'arrays.npz'?")
    assert error_of("text", path="pictrues").endswith("; did you mean 'pictures'?")
    message = error_of("tfds", path="flower")
    assert message.endswith("; did you mean 'flowers'?")
    assert f"tfds build flower --file_format=array_record --data_dir={tmp_path}" in message


def test_data_that_exceed_the_memory_name_the_data_set(monkeypatch):
    def load(*_):
        raise MemoryError("Unable to allocate 74.5 GiB for an array")

    monkeypatch.setitem(data.DATASETS, "digits", load)
    message = error_of("digits")
    assert message.startswith("config.data.name = 'digits': out of memory: 80 GB were requested, ")
    assert "config.run.data_placement = 'host'" in message
