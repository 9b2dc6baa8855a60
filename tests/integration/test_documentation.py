"""Paths, names, links and command lines in *.md files and docstrings exist in the
code.
"""

import functools
import importlib
import re
from pathlib import Path

import documentation as docs
import pytest
from helpers import ROOT

from aigc_jax.cli import main as cli
from aigc_jax.methods.schema import METHODS
from aigc_jax.models.schema import MODEL
from aigc_jax.sweeps import engines, grid, trials
from aigc_jax.training import config as configs
from aigc_jax.training import config_files
from aigc_jax.training.schema import allowed_keys
from aigc_jax.utils.errors import UserError
from aigc_jax.utils.python_files import find_python_file, import_python_file

pytestmark = pytest.mark.unit

PACKAGE = ROOT / "aigc_jax"
DOCUMENTS = docs.documents()
SOURCES = [p for folder in docs.FOLDERS for p in (ROOT / folder).rglob("*.py")]
SOURCES += [*ROOT.glob("*.py"), *(ROOT / "tests").rglob("*.py")]
MODULES = [
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for p in PACKAGE.rglob("*.py")
]
# All config keys of all methods and networks, and the sections.
KEYS = {name for pair in MODEL for name in allowed_keys(*pair)}
KEYS |= {name for method in METHODS for name in allowed_keys(method)}
KEYS |= {name.rpartition(".")[0] for name in KEYS if "." in name}
# Names that configs may choose, some of which have a dot.
CHOICES = {name for pair in MODEL for key in allowed_keys(*pair).values() for name in key.allowed}
# Short name of an object in documents -> the class of the object.
OBJECTS = {
    "run": "aigc_jax.inference.run.Run",
    "state": "aigc_jax.core.method.TrainState",
    "inputs": "aigc_jax.metrics.inputs.MetricInputs",
    "feed": "aigc_jax.data.pipelines.FromHost",
    "self": "aigc_jax.models.discriminator.Discriminator",
}
OF_OTHERS = {"jax", "flax", "lax", "torch", "ast", "transformers", "GPT2LMHeadModel"}
OF_OTHERS |= {"pandas", "np", "optax", "nn", "scipy", "subprocess", "datasets"}
FLAGS_OF_OTHERS = {  # flags of Slurm, gcloud, gcsfuse and mount-s3
    *("--gpus-per-node", "--gpus-per-task", "--kill-on-bad-exit", "--ntasks-per-node"),
    *("--requeue", "--signal", "--worker", "--implicit-dirs", "--read-only"),
}
OF_FILES = {".json", ".jsonl", ".txt", ".csv", ".md", ".png", ".pdf", ".html", ".npz", ".in"}
OF_FILES |= {".journal", ".part", ".toml", ".yml", ".yaml", ".cff", ".svg", ".whl", ".mid"}
OF_FILES |= {".pt", ".safetensors", ".npy", ".array_record"}
RETIRED = {
    "hp.clip",
    "hp.decay",
    "hp.ema",
    "model.place",
    "data.joined",
    "run.data",
    "run.sequence",
}  # CHANGELOG.md names their replacements


def check_all(find, is_true):
    """Raise an AssertionError that lists each result of `find(text, markdown)` in the
    documents for which `is_true(thing, path)` is false or raises.
    """
    out = []
    for path, texts in DOCUMENTS.items():
        for thing in (t for text in texts for t in find(text, path.suffix == ".md")):
            try:
                why = "" if is_true(thing, path) else "is not there"
            except (UserError, AssertionError) as e:
                why = str(e)
            if why:
                out.append(f"{path.relative_to(ROOT)}: {thing}: {why}")
    assert not out, "\n".join(["", *out])


def test_paths_exist():
    def exists(name, path):
        of_ours = name.split("/")[0] in (*docs.FOLDERS, "tests") or name.endswith(".py")
        bases = (ROOT, PACKAGE, path.parent)
        return (
            not of_ours
            or any((base / name).exists() for base in bases)
            or name.startswith("jax/_src/")
        )

    check_all(lambda text, _: docs.paths(text), exists)


def test_names_of_files_exist():
    known = {p.name for p in SOURCES}
    exists = lambda name, _: not re.fullmatch(r"[a-z_0-9]+\.py", name) or name in known
    check_all(lambda text, _: docs.spans(text), exists)


def test_names_of_code_and_of_keys_exist():
    """A docstring may also name variables of its own file."""
    is_variable = lambda name, path: (
        path.suffix == ".py"
        and (first := name.split(".")[0]) in docs.variables(path)
        and not any(module.endswith(f".{first}") for module in MODULES)
    )
    exists = lambda name, path: is_known(name) or is_variable(name, path)
    check_all(lambda text, _: docs.names(text), exists)


@functools.cache
def is_known(name: str) -> bool:
    first = name.split(".")[0]
    if Path(name).suffix in OF_FILES | {".py"} or first in OF_OTHERS or name in RETIRED | CHOICES:
        return True
    key = name.removeprefix("config.")
    section, _, last = key.rpartition(".")
    if key in KEYS or (section in {*KEYS, ""} and docs.is_placeholder(last)):
        return True
    if first in OBJECTS and has(OBJECTS[first], name.split(".")[1:]):
        return True
    short = name.removeprefix("aigc_jax.")
    names = [f"aigc_jax.{short}", *(f"{m.rpartition('.')[0]}.{short}" for m in ending(first))]
    return any(has(*divide(name)) for name in names) or has_class(name)


def ending(last: str) -> list[str]:
    return [module for module in MODULES if module.endswith(f".{last}")]


def divide(name: str) -> tuple[str, list[str]]:
    """The longest module path that begins a name, and the remaining parts."""
    parts = name.split(".")
    module = next(m for i in range(len(parts), 0, -1) if (m := ".".join(parts[:i])) in MODULES)
    return module, parts[module.count(".") + 1 :]


def has(name: str, attributes) -> bool:
    """Whether `name` has the chain of attributes; an annotated field of a class ends
    the chain.
    """
    module, rest = divide(name)
    found = importlib.import_module(module)
    for attribute in [*rest, *attributes]:
        if attribute in getattr(found, "__annotations__", {}):
            return True
        if not hasattr(found, attribute):
            return False
        found = getattr(found, attribute)
    return True


def has_class(name: str) -> bool:
    """Whether `Class.attribute` exists in a class of the package."""
    first, *rest = name.split(".")
    pattern = re.compile(rf"^class {first}\b", re.M)
    files = [p for p in PACKAGE.rglob("*.py") if pattern.search(p.read_text())]
    modules = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in files]
    return any(has(f"{module}.{first}", rest) for module in modules)


def test_package_diagram_matches_the_source():
    rooms = import_python_file(ROOT / "docs/draw_rooms.py", "script")
    drawn = rooms.draw(rooms.levels(), rooms.room_imports())
    assert rooms.OUT.read_text(encoding="utf-8") == drawn, "run: python docs/draw_rooms.py"
    names = [room for level in rooms.levels() for room in level]
    assert rooms.HOLDS.keys() == set(names)
    for room in names:
        assert f">{room}</text>" in drawn


def test_links_resolve():
    def resolves(target, path):
        is_local = not target.startswith(("http://", "https://", "#"))
        return not is_local or (path.parent / target.partition("#")[0]).exists()

    check_all(lambda text, markdown: docs.LINK.findall(text) if markdown else [], resolves)


def test_command_lines_are_valid():
    def is_valid(command, _):
        line, is_whole = command
        check_command(docs.shell_words(line), is_whole)
        return True

    check_all(docs.commands, is_valid)


def check_command(words: list[str], is_whole: bool):
    """Raise a UserError or an AssertionError where the command line refuses `words`. Of
    the files that they name, only configs and experiments must exist.
    """
    overrides, rest = cli.split_overrides(words)
    parser, verbs = cli.make_parser()
    for action in verbs[rest[0]]._actions:
        if not is_whole:  # a flag may be mentioned without its value
            action.required, action.nargs = False, action.nargs if action.option_strings else "*"
            takes = action.nargs is None
            rest = [f"{w}=NAME" if takes and w in action.option_strings else w for w in rest]
        for flag in action.option_strings if action.type in (int, float) else ():
            rest = [f"{flag}=1" if is_placeholder_for_number(w, flag) else w for w in rest]
    if "--help" in rest:
        return
    args, unknown = parser.parse_known_args(rest)
    assert not unknown, f"{rest[0]} takes no {unknown}"
    for flag, table in tables().items():
        for name in filter(None, str(getattr(args, flag, None) or "").split(",")):
            assert name in table or docs.is_placeholder(name), f"--{flag}={name}"
    if getattr(args, "experiment", None) and not docs.is_placeholder(args.experiment):
        find_python_file(args.experiment, "experiment")
    assert not overrides or rest[0] in cli.OVERRIDABLE
    varied = [pair for text in getattr(args, "grid", []) for pair in grid.parse_grid(text)]
    check_overrides(getattr(args, "config", None), overrides, varied)


def is_placeholder_for_number(word: str, flag: str) -> bool:
    name, _, value = word.partition("=")
    return name == flag and docs.is_placeholder(value)


def tables() -> dict:
    from aigc_jax.data import DATASETS
    from aigc_jax.metrics import METRICS

    return dict(
        metrics=METRICS, name=DATASETS, engine=engines.ENGINES, route=dict.fromkeys(trials.ROUTES)
    )


def check_overrides(config, overrides: dict, varied: list[dict]):
    """Validate overrides of `config`, or only their keys where it is a placeholder."""
    given = {k: v for k, v in overrides.items() if not docs.is_placeholder(k)}
    if not config or docs.is_placeholder(config):
        assert given.keys() <= KEYS, given
        return
    base = config_files.load(config)
    configs.validate_config(configs.override(base, given))
    for pair in varied:
        configs.validate_config(configs.override(base, given | pair))


def test_flags_in_backticks_exist():
    """Flags of the subcommands, of the scripts and of configs."""
    known = known_flags()

    def exists(span, _):
        for word in span.split() if span.startswith("--") else ():
            flag, _, value = word.partition("=")
            if flag.startswith("--config."):
                given = {flag.removeprefix("--config."): value} if value else {}
                check_overrides(None, given, [])
            elif flag == "--config" and value and not docs.is_placeholder(value):
                find_python_file(value, "config")
            elif (
                word.startswith("--")
                and flag not in FLAGS_OF_OTHERS
                and not flag.startswith("--xla_")
            ):
                assert flag in known, flag
        return True

    check_all(lambda text, _: docs.spans(text), exists)


def known_flags() -> set[str]:
    verbs = cli.make_parser()[1].values()
    scripts = [p for p in SOURCES if p.relative_to(ROOT).parts[0] in ("benchmarks", "experiments")]
    return {
        flag for verb in verbs for action in verb._actions for flag in action.option_strings
    } | {flag for script in scripts for flag in docs.script_flags(script)}


def test_script_commands_name_existing_files_and_flags():
    def takes(command, _):
        name, rest = command
        known = docs.script_flags(ROOT / name)
        for flag in (word.strip("[]").split("=")[0] for word in rest.split()):
            if flag.startswith("--"):
                assert any(re.fullmatch(pattern, flag) for pattern in known), flag
        return (ROOT / name).is_file()

    check_all(docs.scripts, takes)


def test_make_targets_and_requirements_files_exist():
    rules = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    find = lambda text, _: re.findall(r"(?:^    |`)make ([a-z][a-z-]*)", text, re.M)
    check_all(find, lambda name, _: name in rules)
    find = lambda text, _: re.findall(r"\b(requirements[\w-]*\.(?:txt|in))\b", text)
    check_all(find, lambda name, _: (ROOT / name).is_file())


@pytest.mark.parametrize(
    "line",
    [
        "train --config=gan_digits --workdir=x --nmu=3",
        "train --config=gan_digts --workdir=x",
        "train --config=gan_digits",
        "train --config=gan_digits --workdir=x --config.hp.lr_h=1",
        "train --config=gan_digits --workdir=x --config.hp.lr_g=fast",
        "train --config=gan_digits --workdir=x --config.data.tokenizer=words",
        "sweep --config=vae_digits --grid hp.bta=1,2 --workdir=x",
        "sweep --experiment=vae_bta --workdir=x",
        "evaluate --workdir=x --metrics=frechett",
        "sample --workdir=x --config.latent_dim=3",
    ],
)
def test_invalid_command_lines_are_detected(line):
    check_command(["train", "--config=gan_digits", "--workdir=x", "--config.hp.lr_g=1e-4"], True)
    with pytest.raises((UserError, AssertionError)):
        check_command(line.split(), True)


def test_unknown_names_are_detected():
    for name in ("core.sharding.RULES", "data.order.permute_fixed", "data.path", "run.sample"):
        assert is_known(name)
    for name in ("core.sharding.RULEZ", "data.order.fix", "data.pth", "run.smple", "layout.axes"):
        assert not is_known(name)


def test_commands_and_names_are_extracted_from_text():
    text = """
        python launch.py train --config=NAME \\
          --workdir=DIR   # a comment
        AIGC_DATA_DIR=D python benchmarks/x.py [--rounds=7]
        sbatch --wrap "srun python -m aigc_jax train --config=gan_digits"

    `sample --num=3` draws, `core.rng.normal_by_index(key)` is keyed, [a picture](docs/x.png).
    """
    found = [docs.shell_words(line) for line, _ in docs.commands(text, False)]
    assert found == [
        ["train", "--config=NAME", "--workdir=DIR"],
        ["train", "--config=gan_digits"],
        ["sample", "--num=3"],
    ]
    assert docs.scripts(text, False) == [("benchmarks/x.py", " [--rounds=7]")]
    assert docs.names(text) == ["core.rng.normal_by_index"] and docs.LINK.findall(text) == [
        "docs/x.png"
    ]
