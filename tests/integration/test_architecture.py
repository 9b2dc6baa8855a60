"""Allowed imports between the subpackages, and the size of functions and files; read
from the source.
"""

import ast
import subprocess
import sys
from types import SimpleNamespace

import pytest
import source_statistics
from helpers import ROOT, environment

from aigc_jax.utils.python_files import import_python_file

pytestmark = pytest.mark.unit

PACKAGE = ROOT / "aigc_jax"
# A package imports only packages of the levels before its own.
LEVELS = (
    ("utils",),
    ("core",),
    ("data", "models", "media"),
    ("metrics",),
    ("methods",),
    ("training",),
    ("inference",),
    ("sweeps",),
    ("cli",),
)
RANK = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
ALWAYS = {"jax", "flax", "optax", "orbax", "ml_collections", "absl", "numpy"}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported_modules(path) -> set[str]:
    """Modules of aigc_jax that a file imports, also within functions: "core.schema"."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "aigc_jax":
            base = node.module.removeprefix("aigc_jax").strip(".")
            for alias in node.names:
                name = f"{base}.{alias.name}".strip(".")
                there = PACKAGE.joinpath(*name.split("."))
                found.add(name if there.is_dir() or there.with_suffix(".py").exists() else base)
        if isinstance(node, ast.Import):
            found |= {a.name.partition(".")[2] for a in node.names if a.name.startswith("aigc_jax")}
    return found - {""}


def test_packages_import_only_packages_of_lower_levels():
    assert {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()} == set(RANK)
    for path in FILES:
        room = path.relative_to(PACKAGE).parts[0]
        for name in imported_modules(path) if room in RANK else ():
            other = name.split(".")[0]
            assert other == room or RANK[other] < RANK[room], f"{path} imports {name}"


def test_imports_between_modules_have_no_cycle():
    names = {p: ".".join(p.relative_to(PACKAGE).with_suffix("").parts) for p in FILES}
    names = {p: name.removesuffix(".__init__") for p, name in names.items()}
    left = {
        names[p]: imported_modules(p) & set(names.values()) for p in FILES if names[p] != "__init__"
    }
    while left:
        free = [k for k, v in left.items() if not v & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        left = {k: v for k, v in left.items() if k not in free}


def test_config_files_do_not_import_the_package():
    for path in (ROOT / "configs").glob("*.py"):
        assert "aigc_jax" not in path.read_text(), path


def test_module_level_imports_are_core_libraries():
    """Heavy or optional libraries are imported inside the functions that use them."""
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else names
            for first in (name.split(".")[0] for name in names):
                known = first in ALWAYS | {"aigc_jax"} or first in sys.stdlib_module_names
                assert known, f"{path.name} imports {first} at its top"


@pytest.mark.parametrize("room", ["sweeps", "cli"])
def test_sweeps_and_cli_import_no_jax(room):
    """A launcher only waits for jobs, and importing jax costs seconds and hundreds of
    megabytes. `sweeps.group` and `sweeps.route` run inside a job.
    """
    files = [p for p in FILES if p.relative_to(PACKAGE).parts[0] == room]
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in files]
    names = [n for n in names if n not in ("aigc_jax.sweeps.group", "aigc_jax.sweeps.route")]
    code = "import sys, importlib\nfor n in sys.argv[1:]: importlib.import_module(n)\n"
    code += "print('jax' in sys.modules)"
    words = [
        sys.executable,
        "-c",
        code,
        *names,
        "aigc_jax.training.config_files",
        "aigc_jax.training.config_identity",
    ]
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=ROOT, check=True, env=environment()
    )
    assert done.stdout == "False\n"


@pytest.mark.parametrize("words", ["--help", "list"])
def test_help_and_lists_import_no_numpy(words):
    code = "import sys; from aigc_jax.cli.main import main\ntry: main(sys.argv[1:])\n"
    code += "except SystemExit: pass\n"
    code += "print([n for n in ('jax', 'numpy', 'ml_collections') if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code, words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
        env=environment(),
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_models_use_no_loss_optimizer_or_mesh_and_methods_no_mesh():
    forbidden = {
        "models": {"optax", "Mesh", "sharding", "losses"},
        "methods": {"Mesh", "sharding", "pmap"},
    }
    for folder, words in forbidden.items():
        for path in (PACKAGE / folder).rglob("*.py"):
            names = {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
            assert not names & words, path


def test_functions_stay_small():
    """At most 40 lines, three nested blocks and seven positional parameters."""
    for f in source_statistics.functions(PACKAGE):
        name = f"{f.path}: {f.name}"
        assert f.length <= 40 or f.name in source_statistics.TABLES, f"{name} is two things"
        assert f.nesting <= 3 and f.positional <= 7, name


def test_function_names_and_annotations_meet_the_thresholds():
    assert source_statistics.one_word_share(PACKAGE) <= 0.45
    assert source_statistics.annotated_share(PACKAGE) >= 0.7
    for room in ("core", "data", "training", "inference", "sweeps"):
        assert source_statistics.annotated_share(PACKAGE, (room,)) >= 0.9, room


def test_names_and_prose_use_the_terms_of_the_field():
    words = source_statistics.private_words(PACKAGE)
    assert words.total() <= 32, words


def test_files_stay_small():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 400, f"{path.name} is two things"
    for path in (ROOT / "tests").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 600, f"{path.name} is two things"


def test_subprocesses_of_tests_set_their_environment():
    """A Python process would inherit the eight simulated devices."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if name in ("subprocess.run", "subprocess.Popen"):
                words = node.args[0]
                first = words.elts[0] if isinstance(words, ast.List) else words
                literal = isinstance(first, ast.Constant)  # not Python, such as "sinfo"
                given = {keyword.arg for keyword in node.keywords}
                assert literal or "env" in given, f"{path.name}:{node.lineno}"


def test_tests_of_a_checkout_called_slow_are_not_of_the_slow_tier():
    """pytest counts the names of folders among the keywords of a test."""
    conftest = import_python_file(ROOT / "tests" / "conftest.py", "script")
    tiers = {"slow": pytest.mark.slow.mark, "unmarked": None}
    added = {}
    for name, mark in tiers.items():
        item = SimpleNamespace(
            keywords={"slow": True},
            get_closest_marker=lambda tier, mark=mark: mark if tier == "slow" else None,
            add_marker=lambda skip, name=name: added.setdefault(name, skip.name),
        )
        conftest.pytest_collection_modifyitems(SimpleNamespace(getoption=lambda _: False), [item])
    assert added == {"slow": "skip"}
