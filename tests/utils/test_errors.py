"""Errors name arguments; Python spells them as names, the command line as flags."""

import ast
import pickle
import re

import pytest
from helpers import ROOT

from aigc_jax.cli import main as cli
from aigc_jax.utils.errors import (
    FormatError,
    UserError,
    choose,
    format_command,
    format_flags,
    mark_argument,
)

pytestmark = pytest.mark.unit

# Options of other programs and of the compiler: file -> the words that begin with
# dashes.
OPTIONS = {
    "data/records.py": {"--file_format", "--data_dir"},
    "inference/train.py": {"--xla_gpu_deterministic_ops"},
    # Commands that a reader of a report may copy.
    "sweeps/pages/collect.py": {"--experiment", "--workdir"},
    "sweeps/pages/commands.py": {"--config", "--workdir"},
    "sweeps/engines/local.py": {"--query-gpu", "--format"},
    "sweeps/engines/slurm.py": {
        "--cpus-per-task",
        "--noheader",
        "--states",
        "--array",
        "--jobs",
        "--format",
    },
    "training/memory.py": {
        "--xla_cpu_use_fusion_emitters",
        "--xla_cpu_parallel_codegen_split_count",
        "--xla_force_host_platform_device_count",
    },
    "training/provenance.py": {"--porcelain"},
}


def flag_words(path) -> set[str]:
    """The words in the strings and docstrings of a file that resemble flags; "--" for a
    flag formatted from a variable.
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set(re.findall(r"--[A-Za-z][\w-]*", node.value))
        for part in node.values[:-1] if isinstance(node, ast.JoinedStr) else ():
            found |= {"--"} if str(getattr(part, "value", "")).endswith("--") else set()
    return found


def test_only_the_cli_package_contains_flags():
    package = ROOT / "aigc_jax"
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if not name.startswith("cli/"):
            allowed = {"--"} if name == "utils/errors.py" else OPTIONS.get(name, set())
            assert flag_words(path) == allowed, name


def test_arguments_are_names_in_python_and_flags_in_the_cli():
    error = UserError(f"{mark_argument('what')}=x and {mark_argument('label')}=3 go apart")
    assert str(error) == f"{error}" == "what=x and label=3 go apart"
    assert error.spell_arguments(cli.find_flag) == "--what=x and --class=3 go apart"
    assert UserError("config.hp.lr = 'x'").spell_arguments(cli.find_flag) == "config.hp.lr = 'x'"


def test_arguments_without_a_flag_keep_their_name():
    assert UserError(mark_argument("prompts")).spell_arguments(cli.find_flag) == "prompts"


def test_error_arguments_survive_pickling():
    error = pickle.loads(pickle.dumps(FormatError(mark_argument("what"))))
    assert type(error) is FormatError and error.spell_arguments(cli.find_flag) == "--what"


def test_choose_spells_arguments_as_flags_but_not_config_keys(capsys):
    with pytest.raises(UserError, match="^what = 'pior' is none of prior; did you mean") as e:
        choose(dict(prior=1), "pior", "what")
    assert e.value.spell_arguments(cli.find_flag).startswith("--what = 'pior'")
    with pytest.raises(UserError, match="^config.loss = 'x'") as e:
        choose(dict(hinge=1), "x", "config.loss")
    assert e.value.spell_arguments(cli.find_flag).startswith("config.loss = 'x'")


def test_command_in_an_error_matches_the_invocation(monkeypatch):
    error = UserError(f"get it with: {format_command('data', name='mnist', download=True)}")
    assert str(error) == "get it with: aigc data --name=mnist --download"
    monkeypatch.setattr("sys.argv", [str(ROOT / "aigc_jax" / "__main__.py")])
    assert error.spell_arguments(cli.find_flag).endswith(
        ": python -m aigc_jax data --name=mnist --download"
    )
    assert format_flags(route="map", halve=True, download=False) == ["--route=map", "--halve"]


def test_cli_prints_library_errors_with_flags(tmp_path, capsys):
    assert cli.main(["train", "--config=gan_digit", f"--workdir={tmp_path}"]) == 1
    assert capsys.readouterr().err.startswith("error: --config=gan_digit: no such file")
    words = ["train", "--config=gan_digits", f"--workdir={tmp_path}", "--restart", "--extend=9"]
    assert cli.main(words) == 1
    assert (
        "--restart discards the run, --extend continues it: use only one" in capsys.readouterr().err
    )


def test_argument_markers_are_hidden_from_str_and_repr():
    error = UserError(f"{mark_argument('what')} = 'x' is none of a, b")
    assert repr(error) == "UserError(\"what = 'x' is none of a, b\")" and "\0" not in str(error)
