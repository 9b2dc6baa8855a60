"""Directories and parsed pages for the tests of reports; nothing is trained."""

import contextlib
import io
import json
import struct
import wave
import zlib
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from aigc_jax.cli import main as cli
from aigc_jax.sweeps import grid
from aigc_jax.sweeps.sweep import Sweep
from aigc_jax.sweeps.trials import make_trials
from aigc_jax.training import config as configs
from aigc_jax.training import config_files
from aigc_jax.training.run_dir import RunDir

HOSTILE = '<script>alert("x")</script>\'"--><img src=x onerror=alert(1)>&amp;\n\x1b[31m${1+1}%{y}'
STEPS = (0, 10, 20)


def call(*words):
    """Run the launcher in this process; return (exit code, stdout, stderr)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def done(*words) -> str:
    """Run a command that must succeed; return its standard output."""
    code, out, err = call(*words)
    assert code == 0, err
    return out


def refused(words, sentence):
    code, out, err = call(*words)
    assert code == 1 and out == "" and len(err.splitlines()) == 1, (out, err)
    assert err.startswith("error: ") and sentence in err, err


def make_sweep(path, overrides, **changes):
    """A sweep of VAEs on digits, before any trial has begun."""
    sweep = Sweep(path)
    base = configs.override(
        config_files.load("vae_digits"), {"steps": 20, "latent_dims": (3,)} | changes
    )
    sweep.add_trials(make_trials(base, overrides), "configs/vae_digits.py")
    return sweep


def write_run(path, config, rows, status="done", **more):
    """The files of a run, as training writes them."""
    run = RunDir(path)
    run.path.mkdir(parents=True)
    for row in rows:
        run.append_row(row)
    run.close()
    spec = dict(kind="image", shape=[8, 8, 1], n_train=1439)
    stored = dict(identity_version=2, hash="0" * 12, changes={}, data="", spec=spec, config=config)
    run.write_json("config.json", stored | more.pop("stored", {}))
    environment = dict(versions=dict(jax="0.10"), devices=["1 x cpu cpu"], cores=2, commit="a" * 40)
    run.write_json("environment.json", environment | more.pop("environment", {}))
    run.write_status(status, rows[-1]["step"] if rows else 0, **more)
    return run


def trial_rows(generator, steps=STEPS, test=True):
    """Rows of a valid and a train curve, and of the test split at the end."""
    value = lambda step: float(np.float32(50 / (1 + step) + generator.normal()))
    rows = []
    for step in steps:
        rows.append(dict(step=step, split="valid", neg_elbo=value(step), kl=value(step)))
        rows.append(dict(step=step, split="train", loss=value(step)))
    if test:
        rows.append(dict(step=steps[-1], split="test", neg_elbo=value(steps[-1]), kl=1.5))
    return rows


def finish(sweep, numbers=None, images=True, steps=STEPS):
    """Write the files of trials: all, or those with these numbers."""
    group_configs = {
        member["id"]: member["config"]
        for group in sweep.groups_by_name()
        for member in group.stored["members"]
    }
    generator = np.random.default_rng(0)
    for i, trial in enumerate(sweep.read_sweep_json()["trials"]):
        if numbers is None or i in numbers:
            run = write_run(
                sweep.trial_dir(trial["id"]).path,
                group_configs[trial["id"]],
                trial_rows(generator, steps),
            )
            for step in steps[1:3] if images else ():
                write_image(run / "samples" / f"step_{step:08d}.png", i + step)
    return sweep


def write_image(path, seed, size=(48, 32)):
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0]), np.uint8)
    Image.fromarray(pixels).save(path)


def write_huge_image(path, width, height):
    """A PNG whose header declares many pixels."""
    path.parent.mkdir(exist_ok=True)

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0" * 99)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def write_sound(path, seconds=0.05):
    path.parent.mkdir(exist_ok=True)
    with wave.open(str(path), "wb") as f:
        f.setparams((1, 2, 8000, 0, "NONE", ""))
        f.writeframes(b"\0\0" * int(8000 * seconds))


GRID = grid.product(grid.values("hp.beta", 0.5, 1.0, 2.0), grid.seeds(3))


class Page(HTMLParser):
    """The tables, tags, scripts and visible text of a page.

    Attributes:
      tables: {data-table: rows of cells}; hidden bodies are included.
      data: the JSON of the charts.
    """

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.tables, self.tags, self.scripts, self.text, self.bold = {}, [], [], [], []
        self._table = self._cell = None
        self._open = []
        self.source = path.read_text()
        self.feed(self.source)
        self.data = json.loads(self.scripts[0])

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "table":
            self._table = self.tables.setdefault(dict(attrs).get("data-table"), [])
        if tag == "tr" and self._table is not None:
            self._table.append([])
        if tag in ("td", "th"):
            self._cell = ""
        if tag in ("script", "style"):
            self.scripts += [""] * (tag == "script")
        if tag in ("meta", "img", "input", "link", "br"):
            self._open.pop()

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._table[-1].append(self._cell.strip())
            self._cell = None
        self._table = None if tag == "table" else self._table
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data):
        inside = self._open[-1] if self._open else ""
        if inside == "script":
            self.scripts[-1] += data
        elif inside != "style":
            self.text.append(data)
            self._cell = None if self._cell is None else self._cell + data
            self.bold += [data] * (inside == "strong")

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())
