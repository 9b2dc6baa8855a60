"""Metadata of pyproject.toml, and the contents of the wheel and the sdist."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from helpers import ROOT
from packaging.requirements import Requirement

import aigc_jax

pytestmark = pytest.mark.unit

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]


def tracked(*folders) -> set[str]:
    """Existing files that git tracks, below some folders or all."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-z", *folders],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git checkout")
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).exists()}


def locked(name) -> dict[str, str]:
    """{package: version} of a requirements file."""
    lines = (ROOT / name).read_text().splitlines()
    return dict(
        re.match(r"([^=\[]+)(?:\[.*\])?==([^ ;]+)", line).groups()
        for line in lines
        if "==" in line.split(";")[0]
    )


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_version_is_defined_once_and_matches_the_changelog():
    assert PROJECT["project"]["dynamic"] == ["version"]
    source = ROOT / PROJECT["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{aigc_jax.__version__}"' in source.read_text()
    first = re.search(r"^## (\d+\.\d+)(\S*)(.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert aigc_jax.__version__.startswith(f"{first[1]}."), first[0]
    assert ("unreleased" in first[3]) == (".dev" in aigc_jax.__version__), first[0]


def test_console_scripts_are_functions_of_the_package():
    from importlib import import_module

    for place in PROJECT["project"]["scripts"].values():
        module, _, name = place.partition(":")
        assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize(
    "name, ranges",
    [
        ("requirements.txt", [*PROJECT["project"]["dependencies"], *EXTRAS["dev"]]),
        ("requirements-cuda.txt", EXTRAS["cuda"]),
        ("requirements-tpu.txt", EXTRAS["tpu"]),
        ("requirements-engines.txt", EXTRAS["engines"]),
        ("requirements-bench.txt", EXTRAS["bench"]),
    ],
)
def test_locked_versions_satisfy_the_declared_ranges(name, ranges):
    pinned = {canonical(package): number for package, number in locked(name).items()}
    for requirement in map(Requirement, ranges):
        number = pinned.get(canonical(requirement.name))
        assert number and requirement.specifier.contains(number, prereleases=True), requirement


def test_wheel_contains_package_configs_and_experiments_with_rows():
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="no hatchling: make")
    builder = wheel.WheelBuilder(str(ROOT))
    assert builder.metadata.version == aigc_jax.__version__
    held = {file.distribution_path for file in builder.recurse_included_files()}
    of_package = tracked("aigc_jax") | {"aigc_jax/py.typed"}
    shipped = {f"aigc_jax/_share/{name}" for name in tracked("configs", "experiments")}
    assert any(re.fullmatch(r".*/results/vae_beta/rows\.csv", name) for name in shipped)
    assert of_package | shipped <= held
    assert {Path(name).parts[0] for name in held} == {"aigc_jax"}
    assert not any("__pycache__" in name for name in held)


def test_sdist_contains_the_tracked_files():
    sdist = pytest.importorskip("hatchling.builders.sdist", reason="no hatchling: make")
    held = {f.distribution_path for f in sdist.SdistBuilder(str(ROOT)).recurse_included_files()}
    left_out = {".gitignore", ".pre-commit-config.yaml"}
    assert {name for name in tracked() - held if not name.startswith(".github/")} <= left_out


def test_scripts_do_not_change_sys_path():
    for path in [*(ROOT / "experiments").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        assert "sys.path" not in path.read_text(), path
