"""The page of a run in a real Chromium: each control changes the output, the printed
command makes the same bytes again, uploads are refused by a message, and nothing but
127.0.0.1 is asked.
"""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
from argparse import Namespace

import psutil
import pytest
from helpers import ROOT, environment, start_words
from image_files import animated_gif, declared_png, photo
from runs import train
from tiny_configs import tiny

from aigc_jax.cli import app as verb
from aigc_jax.inference.load import load

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("gradio", reason="gradio is not installed (extra: app)")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH"),
]

# Name of a run -> (name of its tiny config, overrides).
RUNS = {
    "gan": ("gan", dict(steps=8, gan__condition="projection", latent_dim=12)),
    "vae": ("vae", dict(steps=8, conditional=True)),
    "classifier": ("classifier", dict(steps=8)),
    # Trained until texts rarely end early, and translations are not empty.
    "lm": ("lm", dict(steps=200, data__tokenizer="characters")),
    "seq2seq": ("seq2seq", dict(steps=300, hp__lr=0.01)),
    "mlm": ("mlm", dict(steps=8)),
}
QUIET = dict(
    run__eval_every="never", run__save_every="never", run__sample_every="never",
    metrics=(), best_metric="",
)  # fmt: skip
# Runs the printed commands of stdin in one process, and prints what each prints.
AGAIN = """
import contextlib, io, json, sys
from aigc_jax.cli import main
outputs = []
for words in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8", newline="")) as out:
        assert main.main(words) == 0, words
    out.flush()
    outputs.append(out.buffer.getvalue().decode())
json.dump(outputs, sys.stdout)
"""
WAIT = 60_000  # milliseconds until an output changes


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def servers(browser, tmp_path_factory):
    """Name of RUNS -> (directory, URL, process) of a server of this run, both made at
    its first use.
    """
    folder, found = tmp_path_factory.mktemp("served"), {}
    temporary, errors = tmp_path_factory.mktemp("temporary"), folder / "errors.txt"

    def serve(name):
        if name not in found:
            method, changes = RUNS[name]
            train(tiny(method, **QUIET, **changes), folder / name)
            process = subprocess.Popen(
                start_words("app", folder / name, "--port=0"),
                stdout=subprocess.PIPE, stderr=errors.open("a"), text=True, cwd=folder,
                env=environment() | dict(TMPDIR=str(temporary)),
            )  # fmt: skip
            url = re.match(r"(http://127\.0\.0\.1:\d+) ", process.stdout.readline())[1]
            found[name] = folder, url, process
        return found[name]

    yield serve
    for i, (_, url, process) in enumerate(found.values()):
        Tab(browser, url)  # a page that is open when its server ends
        process.send_signal((signal.SIGINT, signal.SIGTERM)[i % 2])
        assert process.wait(30) == (0, 128 + signal.SIGTERM)[i % 2]
    assert not list(temporary.iterdir())  # uploads and outputs
    assert "Traceback" not in errors.read_text()


class Tab:
    """The page of a run in a browser, with what it asked for and complained of."""

    def __init__(self, browser, url, width=1280):
        self.page = browser.new_page(viewport=dict(width=width, height=900))
        self.page.set_default_timeout(WAIT)
        self.errors, self.requests = [], []
        self.page.on(
            "console", lambda m: m.type == "error" and self.errors.append((m.text, m.location))
        )
        self.page.on("pageerror", lambda e: self.errors.append((str(e), "")))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url)
        self.page.get_by_role("tablist").wait_for()

    def command(self):
        """The command below the output that is shown."""
        return self.page.locator(".command textarea >> visible=true").input_value()

    def text(self):
        """The text that is shown."""
        return self.page.locator(".outputs textarea >> visible=true").first.input_value()

    def finished_text(self):
        """The text that is shown, once no more of it is generated."""
        stop = self.page.get_by_role("button", name="Stop", disabled=True)
        self.wait_steadily(lambda: stop.count() == 1)
        return self.text()

    def settled_seed(self):
        """The seed of its field, once the command has it and it changes no more."""
        seed = self.page.get_by_label("Seed", exact=True).locator("visible=true")
        shown = lambda: re.search(f"--seed={seed.input_value()}( |$)", self.command())
        self.wait_steadily(shown)
        return seed.input_value()

    def open(self, name):
        """Select a tab."""
        self.page.get_by_role("tab", name=name, exact=True).click()

    def press(self, name):
        self.page.get_by_role("button", name=name, exact=True).locator("visible=true").click()

    def stop(self):
        """Stop the text; return whether it was still generated."""
        button = self.page.get_by_role("button", name="Stop", disabled=False)
        try:
            button.click(timeout=5000)
        except playwright.TimeoutError:
            return False
        return True

    def image(self):
        """The bytes of the image that is shown."""
        image = self.page.locator(".outputs img >> visible=true")
        return self.page.request.get(image.get_attribute("src")).body()

    def wait(self, condition):
        """Wait until a condition holds."""
        end = time.monotonic() + WAIT / 1000
        while not condition():
            assert time.monotonic() < end, f"nothing changed after {self.command()!r}"
            self.page.wait_for_timeout(10)

    def wait_steadily(self, condition, seconds=2):
        """Wait until a condition has held for a while: several answers of the server
        may be under way, in any order.
        """
        end, times = time.monotonic() + WAIT / 1000, 0
        while times < 10 * seconds:
            assert time.monotonic() < end, f"nothing settled after {self.command()!r}"
            times = times + 1 if condition() else 0
            self.page.wait_for_timeout(100)

    def change(self, act):
        """Act, wait until the command is another one, and return it."""
        before = self.command()
        act()
        self.wait(lambda: self.command() not in (before, ""))
        self.page.wait_for_timeout(500)  # the image comes with the command, and is loaded
        return self.command()

    def fill(self, label, value):
        """Type a value into a field, as a user does."""
        field = self.page.get_by_label(label, exact=True).locator("visible=true")
        field.fill(str(value))
        field.press("Tab")

    def choose(self, label, value):
        self.page.get_by_label(label, exact=True).locator("visible=true").click()
        self.page.get_by_role("option", name=value, exact=True).click()

    def message(self, reason=""):
        """The refusal that is shown, once it has the reason."""
        alert = self.page.get_by_role("alert").locator("visible=true").filter(has_text=reason)
        alert.wait_for()
        return alert.inner_text()

    def check_clean(self, url):
        """Nothing but the server was asked, without an error; nothing is cut off."""
        hosts = {urllib.parse.urlsplit(name).netloc for name in self.requests}
        assert hosts <= {urllib.parse.urlsplit(url).netloc, ""}, hosts
        assert self.errors == []
        wide = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0
        self.page.close()


def run_again(commands, folder, out=None):
    """Run printed commands in a folder; return the texts that they print, or the images
    that they write to `out`.
    """
    words = [shlex.split(command) for command in commands]
    assert all(w[:3] == ["python", "launch.py", "sample"] for w in words), words
    files = [out / f"again{i}.png" for i in range(len(words))] if out else []
    more = [[f"--out={file}"] for file in files] or [[]] * len(words)
    done = subprocess.run(
        [sys.executable, "-c", AGAIN],
        input=json.dumps([w[2:] + m for w, m in zip(words, more, strict=True)]),
        capture_output=True, text=True, cwd=folder, check=False,
        env=environment() | dict(PYTHONPATH=str(ROOT)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    texts = [text.removesuffix("\n") for text in json.loads(done.stdout)]
    return [file.read_bytes() for file in files] if out else texts


def listening(pid):
    """The addresses on which a process listens."""
    connections = psutil.Process(pid).net_connections("inet")
    return {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}


def test_the_controls_of_a_gan_change_its_samples(browser, servers, tmp_path):
    folder, url, process = servers("gan")
    assert listening(process.pid) == {"127.0.0.1"}
    tab = Tab(browser, url)
    tab.page.locator(".outputs img").wait_for()
    seen = {tab.image(): tab.command()}
    for label, value, flag in [
        ("number input for Number of samples", 6, "--num=6"),
        ("Seed", 7, "--seed=7"),
        ("number input for Latent 0", 2.5, "--latent=0:2.5"),
        ("Other latents, 0 to 11", "9:-1", "--latent=0:2.5,9:-1.0"),
    ]:
        command = tab.change(lambda label=label, value=value: tab.fill(label, value))
        assert flag in command
        seen[tab.image()] = command
    slider = tab.page.get_by_label("range slider for Latent 1", exact=True)
    for act, expected in [
        (lambda: slider.press("ArrowRight"), "--latent=0:2.5,1:[-.0-9]+,9:-1.0"),
        (lambda: tab.choose("Class", "3"), "--seed=7 --latent=9:-1.0 --class=3"),
        (lambda: tab.press("Reset latents"), "--seed=7 --class=3"),
        (lambda: tab.press("New seed"), "--what=prior --num=6 --seed=[0-9]+ --class=3"),
        (
            lambda: tab.choose("Sampler", "interpolation"),
            "--what=interpolation --num=6 --seed=[0-9]+",
        ),
    ]:
        command = tab.change(act)
        assert re.search(f"{expected}$", command), command
        seen[tab.image()] = command
    other = tab.page.get_by_label("Other latents, 0 to 11")
    assert not other.is_visible() and not slider.is_visible()  # an interpolation has none
    tab.change(lambda: tab.choose("Sampler", "prior"))
    assert other.is_visible()
    command = tab.change(lambda: tab.fill("number input for Latent 0", -1))
    assert re.search("--what=prior --num=6 --seed=[0-9]+ --latent=0:-1.0 --class=3$", command)
    seen[tab.image()] = command
    for value in (-1, 1.5):
        tab.fill("Seed", value)
        tab.message(f"seed={value} must be an integer in [0, 4,294,967,295]")
        assert tab.command() == "" and not tab.page.locator(".outputs img").count()
    for _ in range(4):  # faster than they are drawn
        tab.press("New seed")
    seed = tab.settled_seed()
    assert f"--seed={seed} " in tab.command()
    seen[tab.image()] = tab.command()
    assert len(seen) == 12
    assert run_again(seen.values(), folder, tmp_path) == list(seen)
    tab.check_clean(url)


def test_samplers_and_splits_of_a_vae_change_its_figures(browser, servers, tmp_path):
    folder, url, _ = servers("vae")
    tab = Tab(browser, url)
    tab.page.locator(".outputs img").wait_for()
    split = tab.page.get_by_label("Split of the examples", exact=True)
    assert not split.is_visible()  # the prior reads none
    seen = {}
    for label, value, expected in [
        ("Sampler", "reconstruction", "--what=reconstruction --num=20 --seed=0 --split=test"),
        ("Split of the examples", "train", "--what=reconstruction .* --split=train"),
        ("Sampler", "latents", "--what=latents .* --split=train"),
        ("Split of the examples", "valid", "--what=latents .* --split=valid"),
        ("Sampler", "log_likelihood", "--what=log_likelihood .* --split=valid"),
        ("Sampler", "traversal", "--what=traversal --num=20 --seed=0"),
    ]:
        command = tab.change(lambda label=label, value=value: tab.choose(label, value))
        assert re.search(f"{expected}$", command), command
        shown = tab.page.locator(".samples img >> visible=true")
        assert shown.evaluate("x => getComputedStyle(x).imageRendering") == "auto"  # legible
        seen[tab.image()] = command
    assert len(seen) == 6 and not split.is_visible()
    assert run_again(seen.values(), folder, tmp_path) == list(seen)
    tab.check_clean(url)


def test_an_uploaded_image_is_reconstructed_or_refused(browser, servers, tmp_path):
    folder, url, _ = servers("vae")
    tab = Tab(browser, url, 390)
    tab.open("Upload")
    upload = lambda path: tab.page.locator("input[type=file]").set_input_files(path)
    name = "it's $1 & 50%\u00fc.png"
    (folder / name).write_bytes(photo())
    command = tab.change(lambda: upload(folder / name))
    assert shlex.split(command)[-3:] == [f"--input={name}", "--seed=0", "--class=0"]
    tab.page.get_by_alt_text("The model's input").wait_for()
    seen = {tab.image(): command}
    for act, expected in [
        (lambda: tab.fill("Seed", 3), "--what=reconstruction .* --seed=3 --class=0"),
        (lambda: tab.choose("Class", "7"), "--what=reconstruction .* --seed=3 --class=7"),
        (lambda: tab.press("New seed"), "--what=reconstruction .* --seed=[0-9]+ --class=7"),
        (lambda: tab.choose("Sampler", "log_likelihood"), "--what=log_likelihood .* --class=7"),
        (lambda: tab.choose("Sampler", "latents"), "--what=latents .* --class=7"),
    ]:
        command = tab.change(act)
        assert re.search(f"{expected}$", command), command
        seen[tab.image()] = command
    assert len(seen) == 6
    assert run_again(seen.values(), folder, tmp_path) == list(seen)
    for name, data, reason in [
        (
            "large.png",
            declared_png(10_000, 10_000),
            "10,000 x 10,000 pixels are more than 25 megapixels",
        ),
        ("damaged.png", photo()[:60], "cannot be used"),
        ("text.png", b"only text", "it is no image of the formats"),
        ("a.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "it is no image"),
        ("a.gif", animated_gif(), "it is an animation"),
    ]:
        (tmp_path / name).write_bytes(data)
        tab.page.get_by_label("Remove this file").or_(tab.page.get_by_label("Clear")).first.click()
        tab.page.get_by_role("alert").locator("visible=true").wait_for(state="hidden")
        upload(tmp_path / name)
        message = tab.message()
        assert reason in message and name in message and str(tmp_path) not in message
        assert tab.command() == ""
    tab.check_clean(url)


def test_probabilities_of_an_uploaded_image_are_those_of_the_classifier(browser, servers, tmp_path):
    folder, url, _ = servers("classifier")
    tab = Tab(browser, url)
    tab.page.locator(".outputs img").wait_for()
    seen = {}
    for split in ("train", "valid"):
        command = tab.change(lambda split=split: tab.choose("Split of the examples", split))
        assert command.endswith(f"--what=saliency --num=16 --seed=0 --split={split}")
        seen[tab.image()] = command
    tab.open("Upload")
    assert not tab.page.get_by_label("Class", exact=True).is_visible()
    functions = verb.make_functions(
        load(folder / "classifier"), Namespace(workdir="", checkpoint="latest"), "", tmp_path
    )
    shown = []
    for name, data in (("ramp.png", photo()), ("steep.png", photo((9, 80)))):
        (folder / name).write_bytes(data)
        if shown:
            tab.page.get_by_label("Remove this file").or_(
                tab.page.get_by_label("Clear")
            ).first.click()
        command = tab.change(
            lambda name=name: tab.page.locator("input[type=file]").set_input_files(folder / name)
        )
        seen[tab.image()] = command
        found = functions.classify_upload(folder / name).value
        ranked = sorted(found, key=found.get, reverse=True)
        lines = tab.page.locator(".confidence-set").all_inner_texts()
        shown.append([line.split() for line in lines])
        assert [words[0] for words in shown[-1]] == ranked and len(ranked) == 10
        for words in shown[-1]:
            assert abs(float(words[-1].rstrip("%")) / 100 - found[words[0]]) < 0.006
    assert shown[0] != shown[1] and len(seen) == 4
    assert run_again(seen.values(), folder, tmp_path) == list(seen)
    tab.check_clean(url)


def test_text_is_streamed_and_equals_that_of_the_command(browser, servers):
    folder, url, _ = servers("lm")
    tab = Tab(browser, url)
    tab.page.get_by_label("Prompt").fill("it's <b>a prompt</b>\nof two lines")
    tab.fill("number input for tokens", 100)
    seen = {}
    for label, value, flag in [
        ("Seed", 1, "--seed=1"),
        ("number input for temperature", 0.8, "--temperature=0.8"),
        ("top_k", 20, "--top_k=20"),
        ("number input for top_p", 0.9, "--top_p=0.9"),
        ("number input for min_p", 0.2, "--min_p=0.2"),
        ("number input for repetition", 1.5, "--repetition=1.5"),
    ]:
        tab.fill(label, value)
        command = tab.change(lambda: tab.press("Generate"))
        seen[tab.finished_text()] = command
        assert flag in command
    for label, value, right in [("Seed", -1, 1), ("Seed", 1.5, 1), ("top_k", 2.5, 20)]:
        tab.fill(label, value)
        tab.press("Generate")
        name = label.lower()
        tab.message(f"{name}={value} must be an integer in [0, ")
        assert tab.text() == tab.command() == ""
        tab.fill(label, right)
    command = tab.change(lambda: tab.press("New seed"))
    seen[tab.finished_text()] = command
    assert len(seen) == 7 and all(t.startswith("it's <b>a prompt</b>\nof two") for t in seen)
    tab.fill("number input for top_p", 0.7)
    command = tab.change(lambda: tab.page.get_by_label("Prompt").press("Shift+Enter"))
    seen[tab.finished_text()] = command
    assert run_again(seen.values(), folder) == list(seen)
    tab.check_clean(url)


def test_stopped_text_is_the_beginning_of_that_of_the_command(browser, servers):
    """After it, the page generates again."""
    folder, url, _ = servers("lm")
    tab = Tab(browser, url)
    tab.page.get_by_label("Prompt").fill("the function returns a new object")
    tab.fill("number input for tokens", 2048)
    tab.fill("number input for temperature", 0.3)
    shorter = []
    for start in ("Generate", *["New seed"] * 5):
        before = tab.command()
        tab.press(start)
        tab.wait(lambda before=before: tab.command() not in (before, "") and tab.text())
        was_stopped = tab.stop()
        text, command = tab.finished_text(), tab.command()
        (complete,) = run_again([command], folder)
        assert complete.startswith(text) and len(text) > 0
        assert was_stopped or text == complete
        assert (tab.text(), tab.command()) == (text, command)
        shorter += [start] * (text != complete)
        if len(shorter) == 2:
            break
    assert len(shorter) == 2  # the others ended before they were stopped
    tab.fill("Seed", 5)
    tab.change(lambda: tab.press("Generate"))
    for _ in range(4):  # each in place of the text that is written
        tab.press("New seed")
    seed = tab.settled_seed()
    assert f"--seed={seed} " in tab.command()
    tab.fill("number input for tokens", 20)
    command = tab.change(lambda: tab.press("Generate"))
    assert run_again([command], folder) == [tab.finished_text()]
    tab.check_clean(url)


def test_translations_are_those_of_the_command(browser, servers):
    folder, url, _ = servers("seq2seq")
    tab = Tab(browser, url)
    seen = {}
    source = tab.page.get_by_label("Source, a text a line")
    for text, act in [
        ("1234\n77", lambda: tab.press("Translate")),
        ("88\n1234", lambda: source.press("Shift+Enter")),
    ]:
        source.fill(text)
        command = tab.change(act)
        assert shlex.split(command)[-1] == f"--prompt={text}"
        seen[tab.text()] = command
    assert len(seen) == 2 and run_again(seen.values(), folder) == list(seen)
    source.fill("1\n" * 16)
    tab.press("Translate")
    assert "at most 16 lines" in tab.message() and tab.text() == tab.command() == ""
    tab.check_clean(url)


@pytest.mark.parametrize(
    "name, samplers", [("seq2seq", ["answer", "greedy", "reference"]), ("mlm", ["filled"])]
)
def test_texts_of_samplers_are_those_of_the_command(browser, servers, name, samplers):
    folder, url, _ = servers(name)
    tab = Tab(browser, url)
    tab.open("Samplers")
    command, seen = tab.change(lambda: tab.press("Draw")), {}
    seen[tab.text()] = command
    draw = lambda: tab.press("Draw")
    for set_control, flag in [
        (lambda: tab.fill("number input for Number of texts", 3), "--num=3"),
        (lambda: tab.choose("Split of the examples", "train"), "--split=train"),
        *((lambda s=s: tab.choose("Sampler", s), f"--what={s}") for s in samplers[1:]),
    ]:
        set_control()
        command = tab.change(draw)
        assert flag in command
        seen[tab.text()] = command
    assert list(seen)[1].count("\n----\n") == 2
    if name == "mlm":  # tokens are masked by the seed
        tab.fill("Seed", 5)
        command = tab.change(draw)
        seen[tab.text()] = command
        command = tab.change(lambda: tab.press("New seed"))
        seen[tab.text()] = command
        assert len(seen) == 5
    assert run_again(seen.values(), folder) == list(seen)
    tab.check_clean(url)
