"""A URL in place of a directory or a file is refused by one error that names a mounted
disk, before anything is read or written.
"""

from pathlib import Path

import pytest
from option_runs import call, refused

import aigc_jax
from aigc_jax import data
from aigc_jax.sweeps.sweep import Sweep
from aigc_jax.training import config as configs
from aigc_jax.training import config_files
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils.errors import UserError
from aigc_jax.utils.files import require_local_path

pytestmark = pytest.mark.unit
SENTENCE = "is a URL, and aigc_jax reads and writes only directories of the file system: mount"
URL = "gs://bucket/a"
RUN = ("--config=gan_digits", "--workdir=run")


@pytest.fixture(autouse=True)
def empty_directory(tmp_path, monkeypatch):
    """The test runs in an empty directory and must leave it empty: a path such as
    gs:/bucket would be created.
    """
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", ["gs", "s3", "s3a", "hdfs", "http", "https", "abfss", "file"])
def test_urls_of_any_scheme_are_refused(scheme):
    for url in (f"{scheme}://bucket/run", Path(f"{scheme}://bucket/run")):
        with pytest.raises(UserError, match=SENTENCE):
            require_local_path(url)
    for path in ("runs/a", "/mnt/gs/a", "~/a", "a:b", "C:/a", "./gs://a", "name=gs://a", ""):
        require_local_path(path)


@pytest.mark.parametrize(
    "words, name",
    [
        (("train", "--config=gan_digits", f"--workdir={URL}"), "--workdir="),
        (("train", *RUN, f"--config.data.path={URL}"), "config.data.path = "),
        (("train", *RUN, f"--config.run.data_dir={URL}"), "config.run.data_dir = "),
        (("train", *RUN, f"--config.init_from={URL}"), "config.init_from = "),
        (("train", *RUN, f"--config.extractor={URL}"), "config.extractor = "),
        (("train", *RUN, f"--config.data.tokenizer_path={URL}"), "config.data.tokenizer_path = "),
        (("train", f"--config={URL}", "--workdir=run"), "--config="),
        (("evaluate", f"--workdir={URL}"), "--workdir="),
        (("evaluate", "--workdir=run", f"--inception={URL}"), "--inception="),
        (("sample", f"--workdir={URL}"), "--workdir="),
        (("sample", "--workdir=run", f"--out={URL}.png"), "--out="),
        (("sample", "--workdir=run", f"--prompt_file={URL}"), "--prompt_file="),
        (("export", f"--workdir={URL}", "--out=gpt2"), "--workdir="),
        (("export", "--workdir=run", f"--out={URL}"), "--out="),
        (("sweep", "--config=gan_digits", "--seeds=2", f"--workdir={URL}"), "--workdir="),
        (("status", URL), "sweep="),
        (("sweep", *RUN, "--grid", f"init_from={URL},b"), "config.init_from = "),
        (("figure", f"--workdir={URL}"), "--workdir="),
        (("figure", "--experiment=vae_beta", f"--out={URL}"), "--out="),
        (("compare", "run", URL), "runs="),
        (("compare", "run", f"--out={URL}.png"), "--out="),
        (("plan", "--config=gan_digits", f"--config.data.path={URL}"), "config.data.path = "),
        (("data", "--name=folder", f"--path={URL}"), "--path="),
        (("data", "--name=mnist", f"--data_dir={URL}"), "--data_dir="),
        (("data", "--name=digits", f"--out={URL}.png"), "--out="),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_command_line_refuses_urls(words, name):
    refused(words, SENTENCE)
    assert call(*words)[2].startswith(f"error: {name}")


def test_python_interface_refuses_urls(monkeypatch):
    for refuse in (
        lambda url: aigc_jax.train("gan_digits", url),
        lambda url: aigc_jax.train("gan_digits", "run", {"data.path": url}),
        lambda url: aigc_jax.train(None, url),
        lambda url: aigc_jax.load(url),
        lambda url: aigc_jax.sweep("gan_digits", {"hp.lr_g": [1e-3]}, workdir=url),
        lambda url: configs.override(config_files.load("gan_digits"), {"run.data_dir": url}),
        lambda url: data.load(config_files.load("gan_mlp_mnist").data, url),
        RunDir,
        Sweep,
    ):
        with pytest.raises(UserError, match=SENTENCE):
            refuse(URL)
    for refuse in (aigc_jax.load, RunDir, Sweep, lambda url: aigc_jax.train("gan_digits", url)):
        with pytest.raises(UserError, match=SENTENCE):
            refuse(Path(URL))
    monkeypatch.setenv("AIGC_DATA_DIR", URL)
    with pytest.raises(UserError, match=f"AIGC_DATA_DIR = .*{SENTENCE}"):
        data.load(config_files.load("gan_mlp_mnist").data)


def test_prompts_may_be_urls():
    code, _, err = call("sample", "--workdir=run", f"--prompt={URL}")
    assert code == 1 and "run is not a run directory" in err
