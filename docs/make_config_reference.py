#!/usr/bin/env python3
"""Write docs/reference/config.md from the schemas of config keys.

python docs/make_config_reference.py
"""

from collections.abc import Iterable
from pathlib import Path

from aigc_jax.core.schema import REQUIRED, Key
from aigc_jax.data.schema import DATA, READ_BY
from aigc_jax.methods import schema as methods
from aigc_jax.methods.hparams import HPARAMS
from aigc_jax.models.schema import DEFAULTS, MODEL
from aigc_jax.training.key_help import describe_type, format_value
from aigc_jax.training.schema import BASE, RUN

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/reference/config.md"

INTRO = """\
# Config keys

Every key of a config, generated from the schemas by `python docs/make_config_reference.py`.
`aigc list --config=NAME` prints the keys of one config with their values and where these come
from; `aigc list --config=NAME KEY` describes one. A key is set in the file, as
`config.KEY = VALUE`, or on the command line, as `--config.KEY=VALUE`; a misspelt key, a wrong
type and a value out of range are refused.

Keys without a default must be set, unless the method or the network has a default of its own,
which its section lists. Hyper-parameters (`hp.*`) and `seed` may differ between the trials of
one program.
"""


def make_page() -> str:
    """Return the page of all keys."""
    parts = [INTRO, "## Common keys", *map(format_key, BASE), "## Data", *format_data()]
    parts += ["## Execution", "These keys may change when a run is resumed.", *map(format_key, RUN)]
    parts += ["## Hyper-parameters", *map(format_hparam, HPARAMS)]
    for name, method in methods.METHODS.items():
        parts += [f"## Method `{name}`", f"{capitalize(method.help)}."]
        parts += [f"Defaults: {format_defaults(method.defaults)}."]
        parts += map(format_key, method.keys)
        parts += format_networks(name)
    return "\n\n".join(part.strip() for part in parts) + "\n"


def capitalize(text: str) -> str:
    """Return a text with its first letter as a capital."""
    return text[:1].upper() + text[1:]


def escape(text: str) -> str:
    """Return a text for a cell or a paragraph of Markdown."""
    return text.replace("|", "\\|").replace("<", "\\<").replace("*", "\\*")


def format_defaults(defaults: dict) -> str:
    """Return {key: value} as a list of assignments."""
    return ", ".join(f"`{key}={format_value(value)}`" for key, value in defaults.items())


def format_key(key: Key, heading: str = "###", note: str = "") -> str:
    """Return the entry of a key: type, default, help, and the allowed names."""
    default = "" if key.default is REQUIRED else f"; default `{format_value(key.default)}`"
    lines = [f"{heading} `{key.name}`", "", f"{escape(key.help)} *{escape(describe_type(key))}*"]
    lines[-1] += f"{default}{note}"
    if key.allowed:
        lines += ["", "| value | |", "|---|---|"]
        lines += [
            f"| `{name or repr(name)}` | {escape(text)} |" for name, text in key.allowed.items()
        ]
    return "\n".join(lines)


def format_hparam(key: Key) -> str:
    """Return the entry of a hyper-parameter, with the choices that read it."""
    name = key.name.removeprefix("hp.")
    readers = [
        f"`{choice}={value}`"
        for choice, table in methods.READ_BY.items()
        for value, names in table.items()
        if name in names
    ]
    return format_key(key, note=f"; read by {', '.join(readers)}")


def format_data() -> Iterable[str]:
    """Return the entries of the keys of `data`, with the data sets that read them."""
    for key in DATA:
        last = key.name.removeprefix("data.")
        readers = [f"`{name}`" for name, keys in READ_BY.items() if last in keys]
        yield format_key(key, note=f"; read by {', '.join(readers)}" if readers else "")


def format_networks(method: str) -> Iterable[str]:
    """Return the sections of the networks of a method."""
    for (owner, network), parts in MODEL.items():
        if owner != method:
            continue
        yield f"### Network `{network}` of `{method}`" if network else f"### Network of `{method}`"
        defaults = DEFAULTS.get((method, network))
        if defaults:
            yield f"Defaults: {format_defaults(defaults)}."
        first = next(pair for pair, others in MODEL.items() if others == parts)
        if first != (owner, network):
            anchor = f"#network-{first[1]}-of-{first[0]}"
            yield f"The keys of [network `{first[1]}` of `{first[0]}`]({anchor})."
            continue
        for part, keys in parts.items():
            for key in keys:
                name = ".".join(filter(None, ("model", part, key.name)))
                yield format_key(key._replace(name=name), "####")


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(make_page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
