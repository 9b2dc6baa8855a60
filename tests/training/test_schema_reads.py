"""Every config key that the code reads is declared in a schema, and every declared key
is read; found in the syntax trees of the package.
"""

import ast
import functools

import pytest
from helpers import ROOT
from ml_collections import ConfigDict

from aigc_jax.data.schema import DATA
from aigc_jax.models.schema import MODEL
from aigc_jax.training.schema import allowed_keys

pytestmark = pytest.mark.unit

PACKAGE = ROOT / "aigc_jax"
SOURCES = [p for p in PACKAGE.rglob("*.py") if "schema" not in p.name]
# Parameters of functions that take one section of a config: name -> section.
SECTIONS = {"gan": "gan", "mesh_config": "run.mesh"}
KEYS = {name for pair in MODEL for name in allowed_keys(*pair)}
NODES = {prefix for name in KEYS for prefix in [name.rpartition(".")[0]] if prefix}
NODES |= {node.rpartition(".")[0] for node in NODES if "." in node} | {"hp", "model"}
METHODS_OF_CONFIGS = set(dir(ConfigDict))


@functools.cache
def tree(path):
    return ast.parse(path.read_text())


def chain(node) -> list[str]:
    """["config", "gan", "pack"] of config.gan.pack; [] of another expression."""
    if isinstance(node, ast.Name):
        return [node.id]
    before = chain(node.value) if isinstance(node, ast.Attribute) else []
    return [*before, node.attr] if before else []


def config_reads() -> dict[str, str]:
    """{dotted key: file} of every chain of attributes of a config."""
    out = {}
    for path in SOURCES:
        is_data = path.relative_to(PACKAGE).parts[0] == "data"
        for node in ast.walk(tree(path)):
            names = chain(node) if isinstance(node, ast.Attribute) else []
            if names[1:2] == ["config"] and names[0] != "jax":  # trial.config, self.config
                names = names[1:]
            if names[:1] != ["config"] or len(names) < 2:
                continue
            key = ["data", *names[1:]] if is_data else names[1:]
            out[".".join(key)] = str(path.relative_to(ROOT))
    return out


def test_keys_that_are_read_are_declared():
    wrong = {}
    for read, path in config_reads().items():
        parts = read.split(".")
        while parts and parts[-1] in METHODS_OF_CONFIGS:
            parts.pop()
        known = [".".join(parts[: i + 1]) for i in range(len(parts))]
        if parts and not any(name in KEYS for name in known) and known[-1] not in NODES:
            wrong[read] = path
    assert not wrong


def words_of(path) -> set[str]:
    """The attributes and string constants of a file."""
    nodes = list(ast.walk(tree(path)))
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return attributes | {
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_declared_keys_are_read():
    """By their attribute, or by their name in hp["..."]; the fields of networks are
    compared with the keys of `model` elsewhere.
    """
    by_room: dict[str, set[str]] = {}
    for path in SOURCES:
        by_room.setdefault(path.relative_to(PACKAGE).parts[0], set()).update(words_of(path))
    everywhere = set().union(*by_room.values())
    reads = config_reads()
    for name in sorted(KEYS):
        first, last = name.split(".")[0], name.split(".")[-1]
        if first == "model":
            continue
        if first == "data":
            assert last in by_room["data"], name
        elif first == "hp":
            assert last in by_room["methods"], name
        elif "." in name:
            assert last in everywhere, name
        else:
            assert name in reads or last == "seed" and "seed" in by_room["training"], name


def test_undeclared_and_unread_keys_are_found(monkeypatch):
    """So that the two tests above can fail."""
    assert {key.name for key in DATA} <= KEYS
    monkeypatch.setitem(globals(), "KEYS", KEYS - {"data.length", "run.fsdp"} | {"unread_key"})
    with pytest.raises(AssertionError, match="length|fsdp"):
        test_keys_that_are_read_are_declared()
    with pytest.raises(AssertionError, match="unread_key"):
        test_declared_keys_are_read()
