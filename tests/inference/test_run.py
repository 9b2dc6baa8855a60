"""`aigc_jax.load`: errors for directories of sweeps, and default samplers."""

import json

import numpy as np
import pytest
from runs import train
from tiny_configs import tiny

from aigc_jax.inference.load import load
from aigc_jax.utils.errors import UserError


@pytest.mark.parametrize(
    "count, more", [(0, "no trial has started yet"), (2, "load one of "), (11, " and 3 more")]
)
def test_loading_a_sweep_directory_names_its_trials(tmp_path, count, more):
    names = [f"lr=0.001,seed={i:02}-{i:08x}" for i in range(count)]
    (tmp_path / "sweep.json").write_text(json.dumps(dict(trials=[dict(id=name) for name in names])))
    for name in names:
        (tmp_path / "trials" / name).mkdir(parents=True)
        (tmp_path / "trials" / name / "config.json").write_text("{}")
    with pytest.raises(
        UserError, match=f"{tmp_path} is a sweep, whose trials are runs of their own: "
    ) as e:
        load(tmp_path)
    assert more in str(e.value) and "\n" not in str(e.value)
    assert all(str(tmp_path / "trials" / name) in str(e.value) for name in names[:8])


def test_default_sampler_is_the_first_of_the_method(tmp_path):
    """A VQ-VAE has no prior, so its default samples are reconstructions."""
    quiet = dict(run__eval_every="never", run__save_every="never", run__sample_every="never")
    train(tiny("vqvae", steps=1, metrics=(), best_metric="", **quiet), tmp_path)
    run = load(tmp_path)
    drawn = run.draw(3, "reconstruction")
    np.testing.assert_array_equal(run.draw(3), drawn)
    np.testing.assert_array_equal(run.sample(3), drawn)
