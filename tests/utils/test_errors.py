"""Errors name arguments, which each surface spells in its own way."""

import ast
import pickle
import re

import pytest
from helpers import ROOT

from aigc_jax.cli import main as cli
from aigc_jax.utils.errors import FormatError, UserError, argument, choose, command, flags

pytestmark = pytest.mark.unit

# Options of other programs, and of the compiler: file -> the words that begin with
# dashes.
OPTIONS = {
    "inference/train.py": {"--xla_gpu_deterministic_ops"},
    "sweeps/engines/local.py": {"--query-gpu", "--format"},
    "sweeps/engines/slurm.py": {
        "--cpus-per-task",
        "--noheader",
        "--states",
        "--array",
        "--jobs",
        "--format",
    },
    "training/provenance.py": {"--porcelain"},
}


def dashed(path) -> set[str]:
    """The words of a file's texts, docstrings too, that look like flags; "--" of one
    that is made of dashes and a variable.
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set(re.findall(r"--[A-Za-z][\w-]*", node.value))
        for part in node.values[:-1] if isinstance(node, ast.JoinedStr) else ():
            found |= {"--"} if str(getattr(part, "value", "")).endswith("--") else set()
    return found


def test_no_room_but_the_command_line_writes_flags():
    package = ROOT / "aigc_jax"
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if not name.startswith("cli/"):
            allowed = {"--"} if name == "utils/errors.py" else OPTIONS.get(name, set())
            assert dashed(path) == allowed, name


def test_a_python_user_reads_names_and_the_command_line_flags():
    error = UserError(f"{argument('what')}=x and {argument('label')}=3 go apart")
    assert str(error) == f"{error}" == "what=x and label=3 go apart"
    assert error.spelled(cli.spell) == "--what=x and --class=3 go apart"
    assert UserError("config.hp.lr = 'x'").spelled(cli.spell) == "config.hp.lr = 'x'"


def test_names_that_are_no_flag_stay_as_they_are():
    assert UserError(argument("prompts")).spelled(cli.spell) == "prompts"


def test_names_survive_another_process():
    error = pickle.loads(pickle.dumps(FormatError(argument("what"))))
    assert type(error) is FormatError and error.spelled(cli.spell) == "--what"


def test_a_choice_of_an_argument_and_of_a_config_key(capsys):
    with pytest.raises(UserError, match="^what = 'pior' is none of prior; did you mean") as e:
        choose(dict(prior=1), "pior", "what")
    assert e.value.spelled(cli.spell).startswith("--what = 'pior'")
    with pytest.raises(UserError, match="^config.loss = 'x'") as e:
        choose(dict(hinge=1), "x", "config.loss")
    assert e.value.spelled(cli.spell).startswith("config.loss = 'x'")


def test_a_command_line_within_a_sentence(monkeypatch):
    error = UserError(f"get it with: {command('data', name='mnist', download=True)}")
    assert str(error) == "get it with: aigc data --name=mnist --download"
    monkeypatch.setattr("sys.argv", [str(ROOT / "aigc_jax" / "__main__.py")])
    assert error.spelled(cli.spell).endswith(": python -m aigc_jax data --name=mnist --download")
    assert flags(route="map", halve=True, download=False) == ["--route=map", "--halve"]


def test_errors_of_the_library_have_dashes_in_the_terminal(tmp_path, capsys):
    assert cli.main(["train", "--config=gan_digit", f"--workdir={tmp_path}"]) == 1
    assert capsys.readouterr().err.startswith("error: --config=gan_digit: no such file")
    words = ["train", "--config=gan_digits", f"--workdir={tmp_path}", "--restart", "--extend=9"]
    assert cli.main(words) == 1
    assert "--restart begins again, --extend goes on: give one" in capsys.readouterr().err


def test_the_marks_of_arguments_are_in_no_text_that_people_read():
    error = UserError(f"{argument('what')} = 'x' is none of a, b")
    assert repr(error) == "UserError(\"what = 'x' is none of a, b\")" and "\0" not in str(error)
