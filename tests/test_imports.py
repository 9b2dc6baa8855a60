"""The arrows of the design, read from the source: who may import whom."""

import ast
import subprocess
import sys

from conftest import ROOT, environment

# module or package -> what of ours it may import. What is not listed imports nothing of ours.
ALLOWED = {
    "errors": set(),
    "schema": set(),
    "model_keys": {"schema"},
    "keys": {"model_keys", "schema"},
    "user_files": {"errors"},
    "input_files": {"errors"},
    "durations": {"errors"},
    "values": {"durations", "errors", "schema"},
    "hparams": {"errors", "keys", "schema"},
    "shapes": set(),
    "terminal": set(),
    "stored": {"errors", "shapes"},
    "config": {"durations", "errors", "hparams", "keys", "schema", "stored", "user_files", "values"},
    "layout": set(),
    "core": {"layout"},
    "losses": set(),
    "optim": {"core", "errors", "hparams"},
    "models": {"layout", "models"},
    "sharding": {"core", "errors", "layout"},
    "pickles": {"errors"},
    "costs": set(),
    "plan": {"config", "core", "costs", "data", "methods", "programs", "results", "sharding"},
    "processes": {"errors"},
    "data": {"data", "core", "errors", "input_files", "pickles", "processes", "results", "stored", "terminal"},
    "metrics": {"data", "errors", "metrics"},
    "decode": {"core", "errors"},
    "beam": {"decode"},
    "methods": {"beam", "methods", "models", "losses", "optim", "core", "config", "decode", "errors"},
    "gpt2": {"config", "data", "errors", "input_files", "torch_files"},
    "inception": {"errors", "input_files", "metrics", "models", "results", "torch_files"},
    "torch_files": {"errors", "input_files", "pickles"},
    "samples": {"pictures", "results", "stored"},
    "abc": {"errors", "results", "stored"},
    "writing": {"core", "decode", "errors", "input_files", "terminal"},
    "results": {"errors", "stored"},
    "evidence": {"stored", "terminal"},
    "progress": {"terminal"},
    "pictures": {"results", "stored"},
    "trackers": {"errors"},
    "checkpoint": {"core", "errors", "processes", "results", "stored"},
    "programs": {"config", "core", "costs", "data", "errors", "methods", "metrics", "optim", "pictures", "processes", "sharding"},
    "start": {"checkpoint", "config", "data", "errors", "keys", "optim", "processes", "results", "stored", "terminal"},
    "init_from": {"checkpoint", "core", "data", "errors", "gpt2", "start", "stored", "terminal"},
    "trial": {"checkpoint", "config", "pictures", "results"},
    "extractors": {"checkpoint", "config", "data", "errors", "inception", "jobs", "locks", "methods", "metrics", "results", "start", "terminal"},
    "train": {"checkpoint", "config", "costs", "data", "errors", "extractors", "init_from", "methods", "processes", "programs", "progress",
              "results", "samples", "start", "trackers", "trial", "terminal"},
    "grid": {"errors"},
    "locks": {"stored"},
    "experiment": {"config", "errors", "grid", "user_files"},
    "jobs": {"errors"},
    "cluster": {"errors", "jobs"},
    "slurm": {"cluster", "jobs"},
    "kubernetes": {"errors", "jobs", "results", "stored", "terminal"},
    "engines": {"cluster", "errors", "jobs", "kubernetes", "slurm"},
    "sweep": {"config", "errors", "evidence", "locks", "results", "stored"},
    "group": {"checkpoint", "config", "errors", "extractors", "jobs", "locks", "programs", "results", "sharding", "stored", "sweep",
              "train", "trial", "terminal"},
    "tables": {"errors", "evidence", "stored"},
    "compare": {"config", "errors", "evidence", "results", "tables"},
    "sweep_results": {"errors", "evidence", "locks", "results", "stored", "sweep", "tables", "terminal"},
    "sweeping": {"config", "data", "errors", "experiment", "group", "jobs", "locks", "methods", "programs", "progress", "results",
                 "sweep", "tables", "stored", "terminal"},
    "adaptive": {"config", "errors", "locks", "results", "sweep", "terminal"},
    "run": {"checkpoint", "config", "data", "decode", "errors", "extractors", "gpt2", "metrics", "pictures", "programs", "results",
            "sharding", "start", "stored", "terminal", "writing"},
    "__init__": {"run"},
}
ALWAYS = {"jax", "flax", "optax", "orbax", "ml_collections", "absl", "numpy"}


def ours(path):
    """First components below aigc_jax that a file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "aigc_jax":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("aigc_jax.")}
    return found


def sources():
    for path in sorted((ROOT / "aigc_jax").rglob("*.py")):
        yield path.relative_to(ROOT / "aigc_jax").parts[0].removesuffix(".py"), path


def test_nothing_goes_back():
    for part, path in sources():
        extra = ours(path) - ALLOWED[part]
        assert not extra, f"{path.relative_to(ROOT)} imports {extra}"
    assert set(ALLOWED) == {part for part, _ in sources()}


def test_the_arrows_have_no_circle():
    done, left = set(), {k: v - {k} for k, v in ALLOWED.items()}
    while left:
        free = [k for k, v in left.items() if v <= done]
        assert free, f"a circle among {sorted(left)}"
        done |= set(free)
        left = {k: v for k, v in left.items() if k not in free}


def test_configs_import_no_code_of_ours():
    for path in (ROOT / "configs").glob("*.py"):
        assert not ours(path), path


def test_training_imports_the_core_libraries_alone():
    """Heavy or optional libraries are imported inside the functions that use them."""
    for _, path in sources():
        for node in ast.parse(path.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                first = name.split(".")[0]
                assert first in ALWAYS | {"aigc_jax"} or first in sys.stdlib_module_names, f"{path.name} imports {name} at its top"


def test_what_stands_outside_of_training_starts_without_jax():
    """A launcher that waits for jobs, or looks on, has no use for half a second of imports and hundreds of megabytes."""
    modules = "adaptive cluster engines evidence experiment grid jobs kubernetes locks progress results slurm sweep sweeping tables"
    code = "import sys, importlib\nfor name in sys.argv[1:]: importlib.import_module('aigc_jax.' + name)\nprint('jax' in sys.modules)"
    words = [sys.executable, "-c", code, *modules.split()]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True, env=environment())
    assert done.stdout == "False\n"


def test_networks_know_no_loss_optimiser_or_mesh_and_methods_no_mesh():
    for folder, words in {"models": ("optax", "Mesh", "sharding", "losses"), "methods": ("Mesh", "sharding", "pmap")}.items():
        for path in (ROOT / "aigc_jax" / folder).glob("*.py"):
            names = {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
            assert not names & set(words), path


def test_files_stay_small():
    for _, path in sources():
        assert len(path.read_text().splitlines()) <= 320, f"{path.name} is two things"


def test_processes_of_tests_have_an_environment_of_their_own():
    """A Python process inherits eight simulated devices otherwise, and measures those."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if name in ("subprocess.run", "subprocess.Popen"):
                words = node.args[0]
                first = words.elts[0] if isinstance(words, ast.List) else words
                literal = isinstance(first, ast.Constant)  # of another program, such as "sinfo"
                given = {keyword.arg for keyword in node.keywords}
                assert literal or "env" in given, f"{path.name}:{node.lineno}"
