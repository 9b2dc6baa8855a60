"""Add the defaults of new config keys to tests/fixtures/frozen_defaults.json.

    python tests/freeze_defaults.py

A test compares the file with the schemas: with another default, a config that omits the
key would describe another run, and every run would get another identity.
"""

import json

from helpers import ROOT

from aigc_jax.core.schema import REQUIRED
from aigc_jax.data import schema as data_schema
from aigc_jax.methods import hparams
from aigc_jax.methods import schema as method_schema
from aigc_jax.models.schema import MODEL
from aigc_jax.training import config_identity, schema

FROZEN = ROOT / "tests" / "fixtures" / "frozen_defaults.json"


def identity_defaults() -> dict:
    """{name of the key: its default} of all keys of the identity; keys of a method or a
    network are prefixed with its name.
    """
    shown = lambda k: repr(k.default) if k.default is REQUIRED else k.default
    out = {k.name: shown(k) for k in (*schema.BASE, *data_schema.DATA, *hparams.HPARAMS)}
    out |= {
        f"{name}: {k.name}": shown(k)
        for name, method in method_schema.METHODS.items()
        for k in method.keys
    }
    for (method, network), parts in MODEL.items():
        of = "/".join(filter(None, (method, network)))
        out |= {
            f"{of}: {'.'.join(filter(None, ('model', part, k.name)))}": shown(k)
            for part, own in parts.items()
            for k in own
        }
    return json.loads(json.dumps(out))


def freeze():
    """Write the file; fail if a default changed without a new identity version."""
    frozen, now = json.loads(FROZEN.read_text()), identity_defaults()
    if frozen["identity_version"] == config_identity.IDENTITY_VERSION:
        changed = [name for name, value in frozen["defaults"].items() if now.get(name) != value]
        assert not changed, f"raise config_identity.IDENTITY_VERSION: {changed}"
    FROZEN.write_text(
        json.dumps(dict(identity_version=config_identity.IDENTITY_VERSION, defaults=now), indent=1)
        + "\n"
    )


if __name__ == "__main__":
    freeze()
