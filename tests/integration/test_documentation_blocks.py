"""Every Python block of the README, the site and the notebook is executed, page by page
and in order, in an empty directory. Runs that a page loads are made before, and
training is short: `RUNS` and `SMALL` are the prelude that docs/contribute.md describes.
"""

import ast
import functools
import importlib.util
import inspect
import json
import re
import shutil

import documentation as docs
import jax
import numpy as np
import pytest
from gpt2_directories import write_tokenizer
from helpers import ROOT, environment
from option_runs import one_program
from runs import shared_programs
from tiny_configs import GAN, SMALL_RUN, VAE, tiny

import aigc_jax
from aigc_jax.cli import main as cli
from aigc_jax.sweeps import evidence, experiment, route
from aigc_jax.sweeps.engines.base import ExitStatus
from aigc_jax.sweeps.engines.local import Local
from aigc_jax.training import config as configs
from aigc_jax.training import config_files

# A run that pages load: the method of tests/tiny_configs that it is made of.
RUNS = {"runs/gan": "gan", "runs/vae": "vae", "runs/gpt": "lm"}
BETA = {"hp.beta": [0.25, 1, 4]}  # of the sweep in runs/beta
# What training on a page becomes; keys that a config lacks are left out.
SMALL = SMALL_RUN | GAN | VAE | {"steps": "16 steps"}
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
# Its blocks are files of the package; test_adding applies them.
PAGES = {
    path.relative_to(ROOT).as_posix(): blocks
    for path in docs.markdown_files()
    if path not in (docs.ADDING, docs.TUTORIAL) and (blocks := BLOCK.findall(path.read_text()))
}
NOTEBOOK = "docs/tutorial.ipynb"
PAGES[NOTEBOOK] = [
    "".join(cell["source"])
    for cell in json.loads((ROOT / NOTEBOOK).read_text())["cells"]
    if cell["cell_type"] == "code"
]
# Compiling takes seconds on the other pages.
QUICK = ("docs/design/concepts.md",)
COMING = "docs/guides/coming-from.md"
DATA = "docs/guides/data.md"  # test_data_guide runs its blocks and commands in their order


def shorten(config, overrides):
    """The overrides of a config with those of SMALL, except keys that a page sets."""
    known = configs.flatten_config(config_files.load(config))
    small = {key: value for key, value in SMALL.items() if key in known}
    return small | {k: v for k, v in (overrides or {}).items() if k not in ("steps",)}


def train(config, workdir, overrides=None, **more):
    return real_train(config, workdir, shorten(config, overrides), **more)


def sweep(config, grid=(), seeds=0, workdir="", overrides=None, **more):
    small = shorten(config, overrides)
    return real_sweep(config, grid, min(seeds, 1), workdir, small, route="map", **more)


def run_jobs_here(self, jobs, on_poll=lambda: None):
    """The local engine without processes, whose start takes seconds."""
    words = {job.name: job.words[job.words.index("group") :] for job in jobs}
    return {name: ExitStatus(cli.main(line), "") for name, line in words.items()}


real_train, real_sweep = aigc_jax.train, aigc_jax.sweep


def make_run(folder, name):
    """The directory of a run or sweep that pages load, made at its first use."""
    path = folder / name
    if not path.exists() and name == "runs/beta":
        sweep("vae_digits", BETA, 1, path)
    elif not path.exists():
        real_train(tiny(RUNS[name], steps="16 steps"), path)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """`make_run`, with short training for the pages."""
    folder, patch = tmp_path_factory.mktemp("made"), pytest.MonkeyPatch()
    one = jax.devices()[:1]  # as a user has
    patch.setattr(jax, "devices", lambda *_: one)
    patch.setenv("XLA_FLAGS", environment()["XLA_FLAGS"])
    patch.setattr(Local, "run", run_jobs_here)
    patch.setattr(route, "Programs", shared_programs)  # all sweeps have as many trials
    patch.setattr(aigc_jax, "train", train)
    patch.setattr(aigc_jax, "sweep", sweep)
    with one_program():
        yield functools.partial(make_run, folder)
    patch.undo()


def write_nanogpt_checkpoint(folder):
    """A checkpoint as nanoGPT saves it, with random weights and without biases, and the
    tokenizer of a GPT-2 directory; needs torch.
    """
    import torch

    (folder / "out").mkdir()
    (folder / "gpt2_dir").mkdir()
    vocabulary, width, layers = write_tokenizer(folder / "gpt2_dir"), 8, 2
    torch.manual_seed(0)
    weights = {
        "wte.weight": (vocabulary, width),
        "wpe.weight": (16, width),
        "ln_f.weight": (width,),
    }
    for i in range(layers):
        shapes = {"ln_1": (width,), "ln_2": (width,), "attn.c_attn": (3 * width, width)}
        shapes |= {"attn.c_proj": (width, width), "mlp.c_fc": (4 * width, width)}
        shapes |= {"mlp.c_proj": (width, 4 * width)}
        weights |= {f"h.{i}.{name}.weight": shape for name, shape in shapes.items()}
    model = {f"_orig_mod.transformer.{k}": 0.4 * torch.randn(s) for k, s in weights.items()}
    model["_orig_mod.lm_head.weight"] = model["_orig_mod.transformer.wte.weight"]
    sizes = dict(n_layer=layers, n_head=2, n_embd=width, block_size=16, bias=False)
    sizes |= dict(vocab_size=vocabulary, dropout=0.0)
    torch.save(dict(model=model, model_args=sizes, iter_num=3), folder / "out" / "ckpt.pt")


def missing_library(block) -> bool:
    """Whether a block needs PyTorch, where it is not installed."""
    return "import torch" in block and importlib.util.find_spec("torch") is None


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=[pytest.mark.slow] * (p not in QUICK)) for p in PAGES if p != DATA],
)
def test_python_blocks_run(page, made, tmp_path, monkeypatch):
    blocks = [block for block in PAGES[page] if not missing_library(block)]
    source = "\n".join(blocks)
    for name in re.findall(r'aigc_jax\.load\("(runs/\w+)"', source):
        if (
            not re.search(rf'(train|sweep)\([^)]*"{name}"', source)
            and not (tmp_path / name).exists()
        ):
            shutil.copytree(made(name), tmp_path / name)
    if "ckpt.pt" in source:
        write_nanogpt_checkpoint(tmp_path)
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    if "EXPERIMENT" in names:
        assert isinstance(names["EXPERIMENT"], experiment.Experiment)


class ExampleRun:
    """Attributes that a Run gets when it is made."""

    config = step = meta = states = spec = stored = dir = None


# What these names are in the blocks of all pages.
OBJECTS = {"aigc_jax": aigc_jax, "run": aigc_jax.Run, "sweep": aigc_jax.Sweep}


@pytest.mark.unit
@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_call_what_exists(page):
    """Functions of the package, methods of runs and sweeps, and their arguments."""
    for block in PAGES[page]:
        for node in ast.walk(ast.parse(block)):
            called = node.func if isinstance(node, ast.Call) else node
            owner = getattr(getattr(called, "value", None), "id", None)
            if not isinstance(called, ast.Attribute) or owner not in OBJECTS:
                continue
            attributes = dir(OBJECTS[owner]) + list(vars(ExampleRun)) * (owner == "run")
            assert called.attr in attributes, f"{page}: {owner}.{called.attr}"
            if isinstance(node, ast.Call):
                function = getattr(OBJECTS[owner], called.attr)
                arguments = [None] * (len(node.args) + (owner != "aigc_jax"))
                keywords = {keyword.arg: None for keyword in node.keywords}
                inspect.signature(function).bind(*arguments, **keywords)


def test_claims_of_the_guide_are_compared_with_rows():
    from aigc_jax.sweeps.claims import compare_claim

    names = {}
    block = next(b for b in PAGES["docs/guides/sweeps.md"] if "Claim(" in b)
    exec(compile(block, "sweeps.md", "exec"), names)
    rows = evidence.read_rows(ROOT / "experiments" / "results" / "vae_mnist")
    assert compare_claim(names["CLAIMS"][0], rows).outcome == "reproduced"


@pytest.mark.slow
def test_nanogpt_checkpoint_becomes_a_gpt2_directory(tmp_path, monkeypatch):
    """Its logits are those of nanoGPT but for the tanh approximation of GELU."""
    torch = pytest.importorskip("torch", reason="no torch")
    write_nanogpt_checkpoint(tmp_path)
    monkeypatch.chdir(tmp_path)
    block = next(b for b in PAGES[COMING] if "ckpt.pt" in b)
    exec(compile(block, COMING, "exec"), {})
    run = aigc_jax.load("gpt2_dir")
    tokens = np.array([[3, 250, 17, 101, 258]])
    ours, _ = run.programs.method.language.apply(run.state.params, tokens, None)
    saved = torch.load("out/ckpt.pt", weights_only=True)["model"]
    theirs = nanogpt_logits(saved, torch.tensor(tokens), heads=2)
    assert np.abs(np.asarray(ours)[..., : theirs.shape[-1]] - theirs).max() < 0.01
    assert json.loads((tmp_path / "gpt2_dir/config.json").read_text())["n_positions"] == 16


def nanogpt_logits(model, tokens, heads):
    """Logits of nanoGPT's model.py: pre-norm layers, exact GELU, tied embedding."""
    import torch
    from torch.nn import functional as F

    w = {k.removeprefix("_orig_mod.").removeprefix("transformer."): v for k, v in model.items()}
    norm = lambda x, name: F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"])
    x = w["wte.weight"][tokens] + w["wpe.weight"][: tokens.shape[1]]
    for i in range(2):
        q, k, v = (norm(x, f"h.{i}.ln_1") @ w[f"h.{i}.attn.c_attn.weight"].T).chunk(3, dim=-1)
        split = lambda t: t.reshape(*t.shape[:2], heads, -1).transpose(1, 2)
        a = F.scaled_dot_product_attention(split(q), split(k), split(v), is_causal=True)
        x = x + a.transpose(1, 2).reshape(x.shape) @ w[f"h.{i}.attn.c_proj.weight"].T
        hidden = F.gelu(norm(x, f"h.{i}.ln_2") @ w[f"h.{i}.mlp.c_fc.weight"].T)
        x = x + hidden @ w[f"h.{i}.mlp.c_proj.weight"].T
    with torch.no_grad():
        return (norm(x, "ln_f") @ w["wte.weight"].T).numpy()


def test_notebook_is_stored_with_the_outputs_of_all_its_cells():
    cells = [c for c in json.loads((ROOT / NOTEBOOK).read_text())["cells"]]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) == 10 and [cell["execution_count"] for cell in code] == [*range(1, 11)]
    assert sum("image/png" in str(cell["outputs"]) for cell in code) == 4
    assert not any(out["output_type"] == "error" for cell in code for out in cell["outputs"])
