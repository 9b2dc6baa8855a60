"""Two hundred seeded mistakes in config files and flags: each is refused by one error
that names the key.
"""

import random

import pytest
from helpers import ROOT

from aigc_jax.cli import main as cli
from aigc_jax.core.schema import ABOVE_ZERO, BELOW_ONE, DURATION, INTS, INTS2, NAMES, REQUIRED
from aigc_jax.data.schema import list_data_keys
from aigc_jax.training import config as configs
from aigc_jax.training import config_files
from aigc_jax.training import train as training
from aigc_jax.utils.errors import UserError

pytestmark = pytest.mark.unit

NAMES_OF_FILES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
SEEDS, MISTAKES = range(10), 20
WRONG = {
    bool: (3, "maybe", 0.5, ()),
    int: ("many", 1.5, None, (1, 2), True),
    float: ("fast", None, (0.1,), False),
    str: (7, None, ("a",), 0.5),
    DURATION: ("10 parsecs", "-3 steps", "soon", 1.5, None),
    NAMES: (5, 0.5, (3,)),
    INTS: ("wide", 1.5, ("a",), {"a": 1}),
    INTS2: ("wide", 7.5, (1.5,), 3),
    int | None: ("many", 1.5, (1, 2)),
    float | None: ("wide", (0.1,)),
}


def misspell(rng, word: str) -> str:
    """A word with one letter doubled, dropped or exchanged with its neighbour."""
    i = rng.randrange(max(len(word) - 1, 1))
    return rng.choice(
        (
            word[:i] + word[i] + word[i:],
            word[:i] + word[i + 1 :],
            word[:i] + word[i + 1 : i + 2] + word[i] + word[i + 2 :],
        )
    )


class Mistakes:
    """Draws mistakes for a shipped config: (changed leaves, flags, the key that the
    error must name).
    """

    def __init__(self, rng) -> None:
        self.rng = rng
        self.leaves = configs.flatten_config(config_files.load(rng.choice(NAMES_OF_FILES)))
        self.table = configs.find_allowed_keys(self.leaves)
        self.keys = [self.table[name] for name in self.leaves]

    def draw(self) -> tuple[dict, list[str], str]:
        kinds = (self.misspelt_key, self.misspelt_name, self.wrong_type, self.out_of_range)
        kinds += (self.unread, self.missing, self.value_for_a_section)
        return self.rng.choice(kinds)()

    def give(self, name, value) -> tuple[dict, list[str], str]:
        """A value in the file, or as a flag."""
        if self.rng.random() < 0.5:
            return self.leaves | {name: value}, [], name
        is_names = isinstance(value, tuple) and value and isinstance(value[0], str)
        text = ",".join(value) if is_names else value
        return self.leaves, [f"--config.{name}={text}"], name

    def misspelt_key(self):
        name = self.rng.choice(list(self.leaves))
        parts = name.split(".")
        level = self.rng.randrange(len(parts))
        parts[level] = misspell(self.rng, parts[level])
        wrong = ".".join(parts)
        if wrong in self.table or not all(parts):
            return self.misspelt_key()
        return self.give(wrong, self.leaves[name])

    def misspelt_name(self):
        key = self.rng.choice([key for key in self.keys if any(key.allowed)])
        wrong = misspell(self.rng, self.rng.choice([name for name in key.allowed if name]))
        if wrong in key.allowed:
            return self.misspelt_name()
        return self.give(key.name, (wrong,) if key.type == NAMES else wrong)

    def wrong_type(self):
        key = self.rng.choice(self.keys)
        wrong = self.rng.choice(WRONG[key.type])
        if key.type is str and not key.allowed:  # a flag is always a text
            return self.leaves | {key.name: wrong}, [], key.name
        return self.give(key.name, wrong)

    def out_of_range(self):
        key = self.rng.choice([key for key in self.keys if key.low is not None])
        low = -1 if key.low == ABOVE_ZERO else key.low - 1
        high = 1.0 if key.high == BELOW_ONE else key.high * 8 + 1
        wrong = self.rng.choice((low, high, "nan", "inf", 10**400))
        for kind in (INTS, INTS2) if key.type in (INTS, INTS2) else ():
            wrong = (wrong if isinstance(wrong, int) else low,)
            wrong = (wrong,) if kind == INTS2 == key.type else wrong
        return self.give(key.name, wrong)

    def unread(self):
        unread = {
            "data.range": "0..1",
            "data.languages": "de-en",
            "hp.free_bits": 0.1,
            "hp.penalty": 1,
        }
        read = {f"data.{name}" for name in list_data_keys(self.leaves["data.name"])}
        read |= {name for name in self.leaves if name.startswith("hp.")}
        name = self.rng.choice([name for name in unread if name not in read])
        return self.give(name, unread[name])

    def missing(self):
        usual = configs.list_method_defaults(self.leaves)
        needed = [k.name for k in self.keys if k.default is REQUIRED and k.name not in usual]
        name = self.rng.choice(needed)
        return {k: v for k, v in self.leaves.items() if k != name}, [], name

    def value_for_a_section(self):
        name = self.rng.choice(("run", "data", "schedule", "hp", "model"))
        return self.leaves, [f"--config.{name}=3"], name


def write_config(path, leaves):
    nested: dict = {}
    for name, value in leaves.items():
        *parents, last = name.split(".")
        section = nested
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    body = f"def get_config():\n    return ConfigDict({nested!r})\n"
    path.write_text(f"from ml_collections import ConfigDict\n\n\n{body}")
    return path


@pytest.mark.parametrize("seed", SEEDS)
def test_mistakes_are_refused_by_one_error_that_names_the_key(seed, tmp_path, capsys, monkeypatch):
    def accept(config, *_):
        raise UserError(f"accepted {config}")

    monkeypatch.setattr(training.data, "load", accept)
    rng = random.Random(seed)
    for i in range(MISTAKES):
        leaves, flags, name = Mistakes(rng).draw()
        path = write_config(tmp_path / f"c{i}.py", leaves)
        words = ["train", f"--config={path}", f"--workdir={tmp_path / 'run'}", *flags]
        assert cli.main(words) == 1, words
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and "Traceback" not in err, err
        assert "accepted" not in err, (words, name, leaves.get(name))
        assert f"config.{name}" in err, (name, err)
        assert not (tmp_path / "run").exists()
