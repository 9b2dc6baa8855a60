"""Every sampler of every method draws through the launcher: arrays, and a picture or a
text that is the same file each time.
"""

import numpy as np
import pytest
from PIL import Image
from runs import train
from tiny_configs import tiny

import aigc_jax
from aigc_jax.cli import main as cli
from aigc_jax.inference.sheets import VIEWS
from aigc_jax.methods.schema import METHODS

SHORT = dict(
    steps=5,
    best_metric="",
    metrics=(),
    run__eval_every="never",
    run__sample_every="5 steps",
    run__save_every="never",
)
# Method -> its smallest config, with the keys that all of its samplers need.
CONFIGS = {name: (name, {}) for name in METHODS} | {
    "vae": ("vae", dict(latent_dims=(2,), conditional=True)),
    "gan": ("gan", {"gan.condition": "concatenation"}),
}


@pytest.fixture(scope="module", params=METHODS)
def run(request, tmp_path_factory):
    """A run of five steps of a method, and the method."""
    base, changes = CONFIGS[request.param]
    path = tmp_path_factory.mktemp(request.param) / "run"
    train([tiny(base, **SHORT | changes)], [path])
    return path, request.param


def call(path, what, out):
    words = ["sample", f"--workdir={path}", f"--what={what}", "--num=12", "--seed=3"]
    assert cli.main([*words, f"--out={out}"]) == 0
    return out.read_bytes()


def test_every_sampler_draws_the_same_files_twice(run, tmp_path, capsys):
    path, method = run
    loaded = aigc_jax.load(path)
    samplers = list(loaded.programs.method.samplers)
    assert set(samplers) == set(METHODS[method].samplers), "CONFIGS lacks a key that one needs"
    views = ["neighbours", "separability"] if "prior" in samplers else []
    assert not views or views == list(VIEWS)
    for what in [*samplers, *views]:
        arrays = call(path, what, tmp_path / f"{what}.npy")
        shown = tmp_path / f"{what}{'.txt' if loaded.is_text else '.png'}"
        first = call(path, what, shown)
        count = np.load(tmp_path / f"{what}.npy").shape[what == "separability"]
        assert count == 12
        assert call(path, what, shown) == first
        assert call(path, what, tmp_path / f"{what}.npy") == arrays
        if not loaded.is_text:
            with Image.open(shown) as file:
                assert file.text["seed"] == "3" and min(file.size) > 56


def test_training_writes_the_same_kind_of_sheet(run):
    path, method = run
    (file,) = (path / "samples").iterdir()
    if file.suffix == ".txt":
        return
    loaded = aigc_jax.load(path)
    shape = loaded.sample_shape(loaded.default_sampler)
    with Image.open(file) as image:
        assert image.height > shape[-3] and image.text["step"] == "5"
        border = np.asarray(image.convert("L"))
    assert (border[0] == 255).all() and (border[:, 0] == 255).all(), "a white margin"
