"""One group of a sweep as one program."""

import pytest

from aigc_jax.sweeps import group
from aigc_jax.utils.errors import UserError


def test_rung_without_readable_checkpoint_is_a_user_error(tmp_path):
    halving = dict(metric="valid/loss", mode="min", factor=2)
    with pytest.raises(UserError, match="no good checkpoint"):
        group._rank(None, halving, tmp_path, [], [])
