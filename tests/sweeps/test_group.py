"""One group of a sweep as one program."""

import pytest

from aigc_jax.sweeps.group import GroupTraining
from aigc_jax.sweeps.sweep import Group
from aigc_jax.utils import documents
from aigc_jax.utils.errors import UserError


def test_rung_without_readable_checkpoint_is_a_user_error(tmp_path):
    halving = dict(metric="valid/loss", rungs=["2 steps"], mode="min", factor=2)
    documents.write(tmp_path / "group.json", dict(members=[], halving=halving))
    training = GroupTraining(Group(tmp_path), [], None, "vmap", False, print)
    with pytest.raises(UserError, match="no good checkpoint"):
        training.end_rung(tmp_path, [])
