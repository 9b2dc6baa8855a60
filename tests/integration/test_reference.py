"""Generated pages of the documentation equal what their scripts generate."""

import pytest
from helpers import ROOT

from aigc_jax.models.schema import MODEL
from aigc_jax.training.schema import allowed_keys
from aigc_jax.utils.python_files import import_python_file

pytestmark = pytest.mark.unit


def test_reference_of_config_keys_is_generated_from_the_schemas():
    script = import_python_file(ROOT / "docs/make_config_reference.py", "script")
    page = script.PAGE.read_text(encoding="utf-8")
    assert page == script.make_page(), "run: python docs/make_config_reference.py"
    for pair in MODEL:
        for name, key in allowed_keys(*pair).items():
            assert f"`{name}`" in page and all(f"| `{v or repr(v)}` |" in page for v in key.allowed)
