"""The verbs `list` and `completion`: every table, every key, every origin."""

import ast
import os
import shutil
import subprocess

import pytest
from helpers import ROOT, environment, start_words

from aigc_jax.cli import list as lists
from aigc_jax.cli import main as cli
from aigc_jax.methods import choices
from aigc_jax.models.schema import MODEL
from aigc_jax.training import key_help
from aigc_jax.training.schema import allowed_keys

pytestmark = pytest.mark.unit


def output_of(capsys, *words) -> str:
    assert cli.main(list(words)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def error_of(capsys, *words) -> str:
    assert cli.main(list(words)) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_list_shows_every_name_with_its_help(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    out = output_of(capsys, "list")
    assert max(map(len, out.splitlines())) <= columns
    headings = [line for line in out.splitlines() if line[:1].strip()]
    assert headings == [f"{title}:" for title in lists.make_topics().values()]
    words = " ".join(out.split())
    for topic in lists.make_topics():
        entries = lists.list_topic(topic)
        assert entries and all(entries.values()), topic
        for name, text in entries.items():
            assert f"{name} {' '.join(text.split())}" in words
    for path in [*(ROOT / "configs").glob("*.py"), *(ROOT / "experiments").glob("*.py")]:
        text = ast.get_docstring(ast.parse(path.read_text())).split("\n\n")[0]
        assert f"{path.stem} {' '.join(text.split())}" in words


def test_list_of_a_topic_shows_that_table_only(capsys):
    out = output_of(capsys, "list", "losses")
    assert out.startswith("Losses of GANs, for config.loss:") and "hinge" in out
    assert "adamw" not in out
    words = "TOPIC = 'optimiser' is none of methods, .*; did you mean 'optimizers'"
    import re

    assert re.search(words, error_of(capsys, "list", "optimiser"))
    assert "--config.seed needs --config=NAME" in error_of(capsys, "list", "--config.seed=3")


def test_list_of_a_config_shows_values_and_origins(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = output_of(capsys, "list", "--config=cgan_mnist", "--config.hp.lr_g=0.5")
    shown = dict(zip(out.splitlines()[2::2], out.splitlines()[3::2], strict=True))
    for line, origin in {
        "hp.lr_g=0.5": "command line",
        "gan.condition=auxiliary": "configs/cgan_mnist.py",
        "hp.lr_d=0.001": "configs/gan_mlp_mnist.py",
        "loss=non_saturating": "default of gan",
        "gan.pack=1": "default",
        "model.g.widths=(256, 256)": "configs/cgan_mnist.py",
        "model.d.spectral=False": "default",
    }.items():
        assert shown[line].endswith(f" [{origin}]"), line
    assert not {"data.size=64", "hp.lr=(to be set)"} & shown.keys()  # not read by this config


def test_list_of_a_key_shows_its_type_range_and_allowed_values(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    card = lambda *words: output_of(capsys, "list", "--config=gan_digits", *words)
    assert "integer, 1 to 1,048,576 examples" in card("batch_size")
    assert "number, 0 to below 1" in card("hp.beta1")
    assert "number, at least 0" in card("config.hp.lr_g")
    assert "relativistic_average" in card("loss") and "Lim & Ye" in card("loss")
    lines = card("loss").splitlines()[3:]
    column = lines[0].index("log(1")  # that of all help, also where it continues
    assert all(line[column - 1] == " " != line[column] for line in lines)
    assert card("model.d").count("model.d.") == 7  # a section: all its keys
    assert "did you mean 'latent_dim'" in error_of(
        capsys, "list", "--config=gan_digits", "latent_dims"
    )


def test_every_key_and_every_allowed_name_has_help():
    for pair in MODEL:
        for name, key in allowed_keys(*pair).items():
            assert key.help.endswith(".") and len(key.help) > 6, name
            assert key_help.describe_type(key)
            for value, words in key.allowed.items():
                assert words and not words.endswith("."), (name, value)


def complete(line: str, tmp_path, shell="bash") -> list[str]:
    """The completions of a command line, by argcomplete's protocol."""
    out = tmp_path / "completions"
    asked = dict(
        _ARGCOMPLETE="1", COMP_LINE=line, COMP_POINT=str(len(line)), _ARGCOMPLETE_SHELL=shell
    )
    asked |= dict(_ARGCOMPLETE_STDOUT_FILENAME=str(out), _ARGCOMPLETE_IFS="\n")
    subprocess.run(start_words(), env=environment() | asked, cwd=ROOT, check=True)
    return out.read_text().split("\n")


@pytest.mark.parametrize(
    "line, wanted",
    [
        ("aigc comple", ["completion "]),
        ("aigc train --config=gan_dig", ["--config=gan_digits "]),
        ("aigc train --config=gan_digits --config.hp.ema", ["--config.hp.ema_decay "]),
        ("aigc train --config=gan_digits --config.loss=hi", ["--config.loss=hinge "]),
        ("aigc list --config=lstm_tang --config.model.ce", ["--config.model.cell "]),
        ("aigc sweep --experiment=vae_be", ["--experiment=vae_beta "]),
        ("aigc list toke", ["tokenizers "]),
        ("aigc list --config=gan_digits gan.aug", ["gan.augment "]),
    ],
)
def test_words_are_completed(line, wanted, tmp_path):
    assert complete(line, tmp_path) == wanted


def test_zsh_describes_completed_values(tmp_path):
    found = complete("aigc train --config=gan_digits --config.loss=", tmp_path, "zsh")
    wanted = {f"--config.loss={name}:{words}" for name, words in choices.GAN_LOSSES.items()}
    assert {line.replace("\\", "") for line in found} == wanted


def test_code_for_shells_is_printed(capsys):
    for shell, words in dict(bash="complete", zsh="compdef", fish="complete").items():
        assert words in output_of(capsys, "completion", shell)
    assert "did you mean 'fish'" in error_of(capsys, "completion", "fsh")


def test_bash_completes_words_with_the_printed_code(capsys, tmp_path):
    bash = shutil.which("bash")
    if not bash:
        pytest.skip("needs bash")
    (tmp_path / "code").write_text(output_of(capsys, "completion", "bash"))
    words = " ".join(start_words())
    (tmp_path / "aigc").write_text(f'#!{bash}\nexec {words} "$@"\n')
    (tmp_path / "aigc").chmod(0o755)
    script = (
        f"source {tmp_path / 'code'}; COMP_WORDS=(aigc exp); COMP_CWORD=1; COMP_LINE='aigc exp'; "
        "COMP_POINT=8; COMP_TYPE=9; _python_argcomplete aigc; echo ${COMPREPLY[@]}"
    )
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        [bash, "-c", script],
        env=environment() | dict(PATH=path),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["export"], done.stderr
