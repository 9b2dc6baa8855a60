"""Each class of user error has a message that names what is wrong, where (the file, the
key or the flag), what is allowed, and the nearest spelling.
"""

import fcntl
import os
import shutil
import sys

import pytest
from mistakes import LM, MISTAKES, SWEEP, VAE, write_files
from runs import train
from tiny_configs import tiny

from aigc_jax.cli import main as cli
from aigc_jax.training.run_dir import RunDir


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    write_files(folder)
    quiet = dict(run__eval_every="never", run__save_every="never", run__sample_every="never")
    for name, method in (("run", "vae"), ("text", "lm")):
        config = tiny(method, steps=8, metrics=(), best_metric="", **quiet)
        train(config, folder / name)
    return dict(dir=folder, run=folder / "run", text=folder / "text")


def error_of(capsys, words):
    """The one-line error of a refused command."""
    capsys.readouterr()
    code = cli.main(words)
    err = capsys.readouterr().err
    assert code == 1 and err.startswith("error: ") and len(err.splitlines()) == 1, err
    return err


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistake_names_what_where_allowed_and_nearest(kind, places, capsys, monkeypatch):
    monkeypatch.setenv("AIGC_DATA_DIR", str(places["dir"]))
    for variable in ("XLA_FLAGS", "JAX_PLATFORMS"):  # set by the verb plan
        monkeypatch.setenv(variable, os.environ.get(variable, ""))
    words, named, allowed, nearest = (field.format(**places) for field in MISTAKES[kind])
    message = error_of(capsys, words.split(" "))
    assert named in message, message
    assert allowed in message, message
    assert not nearest or f"did you mean {nearest}" in message or message.rstrip().endswith(nearest)


# -- mistakes that need more than a command


def test_best_metric_that_no_row_has_suggests_the_nearest(places, capsys):
    words = f"train --config=vae_digits --workdir={places['dir']}/best --config.batch_size=96"
    message = error_of(capsys, [*words.split(), "--config.best_metric=valid/neg_elb"])
    assert "config.best_metric = 'valid/neg_elb' is not a row metric; available: valid/" in message
    assert message.rstrip().endswith("; did you mean 'valid/neg_elbo'?")


def test_locked_run_is_named(places, capsys):
    with open(places["run"] / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        message = error_of(capsys, ["train", f"--workdir={places['run']}"])
    assert f"another process is training in {places['run']}" in message


def test_run_without_a_good_checkpoint_names_the_remedy(places, capsys):
    path = places["dir"] / "damaged"
    shutil.copytree(places["run"], path)
    for file in (path / "checkpoints").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    assert cli.main(["sample", f"--workdir={path}"]) == 1
    assert f"{path} has no good checkpoint yet" in capsys.readouterr().err
    assert cli.main(["train", f"--workdir={path}"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"no checkpoint of {path} can be read" in last and "train --restart" in last


def test_damaged_document_names_fault_and_remedy(places, capsys):
    path = places["dir"] / "changed"
    shutil.copytree(places["run"], path)
    text = (path / "config.json").read_text()
    (path / "config.json").write_text(text.replace('"batch_size": 16', '"batch_size": 17'))
    message = error_of(capsys, ["sample", f"--workdir={path}"])
    assert f"{path / 'config.json'} is damaged" in message and "restore it from a copy" in message


def test_diverged_run_names_reason_and_remedy(places, capsys):
    path = places["dir"] / "diverged"
    shutil.copytree(places["run"], path)
    RunDir(path).write_status("failed: diverged", 5, reason="loss is not finite at step 5")
    message = error_of(capsys, ["train", f"--workdir={path}"])
    assert f"{path} failed: loss is not finite at step 5; a diverged run cannot resume" in message
    assert "by --restart or in another --workdir" in message


@pytest.mark.parametrize(
    "package, words, extra",
    [
        ("wandb", f"train {VAE} --config.run.log=csv,wandb", "config.run.log = 'wandb'"),
        ("jieba", f"train {LM} --config.data.tokenizer=chinese_words", "config.data.tokenizer ="),
        ("opencc", f"train {LM} --config.data.script=simplified", "config.data.script = 'simpl"),
        ("ray", f"sweep {SWEEP} --seeds=2 --engine=ray", "--engine=ray"),
        ("submitit", f"sweep {SWEEP} --seeds=2 --engine=slurm", "--engine=slurm"),
    ],
)
def test_missing_package_names_key_and_command(package, words, extra, places, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # as where it is not installed
    message = error_of(capsys, words.format(**places).split())
    assert extra in message and f"needs the package {package}: pip install {package}" in message


@pytest.mark.parametrize(
    "error", [RuntimeError("Unable to initialize backend 'cuda'"), AssertionError()]
)
@pytest.mark.parametrize("verb", ["train", "sample"])
def test_missing_device_names_the_variable(verb, error, places, capsys, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("jax.devices", fail)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    words = dict(
        train="train --config=vae_digits --workdir={dir}/devices", sample="sample --workdir={run}"
    )[verb]
    message = error_of(capsys, words.format(**places).split())
    assert "JAX_PLATFORMS = 'cuda' in the environment: " in message
    assert "unset it to use the devices that exist" in message and "'jax[cuda12]'" in message
    assert not (places["dir"] / "devices").exists()
    monkeypatch.delenv("JAX_PLATFORMS")
    with pytest.raises(type(error)):  # any other failure keeps its traceback
        cli.main(words.format(**places).split())


def test_full_disk_names_the_directory(places, capsys, monkeypatch):
    import errno

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("aigc_jax.training.run_dir.RunDir.write_status", fail)
    words = f"train --config=vae_digits --workdir={places['dir']}/full --config.batch_size=96"
    message = error_of(capsys, words.split())
    assert f"the disk of {places['dir']}/full is full" in message and "free some space" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write every file")
def test_unwritable_directory_is_named(places, capsys):
    folder = places["dir"] / "locked"
    folder.mkdir(mode=0o500)
    message = error_of(capsys, ["train", "--config=vae_digits", f"--workdir={folder / 'run'}"])
    assert f"cannot write to {folder / 'run'}: Permission denied" in message


def test_long_prompts_are_cut_with_a_warning(places, capsys):
    words = ["sample", f"--workdir={places['text']}", f"--prompt={'a' * 60}", "--tokens=2"]
    assert cli.main(words) == 0
    warning = capsys.readouterr().err
    assert "the prompt has 60 tokens and the network 16 positions: only the last" in warning
