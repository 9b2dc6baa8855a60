"""The page of a run in a real Chromium: each control changes the output, the printed
command makes the same bytes again, uploads are refused by a message, and nothing but
127.0.0.1 is asked.
"""

import re
import shlex
import shutil
import signal
import subprocess
import time
import urllib.parse

import psutil
import pytest
from helpers import command_line, environment, start_words
from image_files import animated_gif, declared_png, photo

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("gradio", reason="gradio is not installed (extra: app)")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH"),
]

TINY = {
    "gan_digits": ["--config.steps=50", "--config.gan.condition=projection"],
    "vae_digits": ["--config.steps=50"],
    "rnn_pydoc": [
        "--config.steps=20", "--config.schedule.warmup=2 steps", "--config.model.width=16",
    ],
}  # fmt: skip
WAIT = 60_000  # milliseconds until an output changes


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """config -> (directory, URL) of a server of its run, started at its first use."""
    folder, found = tmp_path_factory.mktemp("served"), {}
    temporary = tmp_path_factory.mktemp("temporary")

    def serve(config):
        if config not in found:
            words = ["train", f"--config={config}", f"--workdir={folder / config}"]
            done = command_line(*words, *TINY[config])
            assert done.returncode == 0, done.stderr
            process = subprocess.Popen(
                start_words("app", folder / config, "--port=0"),
                stdout=subprocess.PIPE, text=True, cwd=folder,
                env=environment() | dict(TMPDIR=str(temporary)),
            )  # fmt: skip
            url = re.match(r"(http://127\.0\.0\.1:\d+) ", process.stdout.readline())[1]
            found[config] = folder, url, process
        return found[config]

    yield serve
    for i, (_, _, process) in enumerate(found.values()):
        process.send_signal((signal.SIGINT, signal.SIGTERM)[i % 2])
        assert process.wait(30) == (0, 128 + signal.SIGTERM)[i % 2]
    assert not list(temporary.iterdir())  # uploads and outputs


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

    def image(self):
        """The bytes of the image that is shown."""
        image = self.page.locator(".outputs img >> visible=true")
        return self.page.request.get(image.get_attribute("src")).body()

    def change(self, act):
        """Act, wait until the command is another one, and return it."""
        before = self.command()
        act()
        end = time.monotonic() + WAIT / 1000
        while self.command() in (before, ""):
            assert time.monotonic() < end, f"nothing changed after {before!r}"
            self.page.wait_for_timeout(50)
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

    def message(self):
        """The refusal that is shown."""
        alert = self.page.get_by_role("alert").locator("visible=true")
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


def run_again(command, folder, **more):
    """Run a printed command in a folder, by the launcher; return its output."""
    words = shlex.split(command)
    assert words[:3] == ["python", "launch.py", "sample"], words
    done = subprocess.run(
        start_words(*words[2:], *(f"--{k}={v}" for k, v in more.items())),
        capture_output=True, text=True, cwd=folder, env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def listening(pid):
    """The addresses on which a process listens."""
    connections = psutil.Process(pid).net_connections("inet")
    return {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}


def test_the_controls_of_a_gan_change_its_samples(browser, servers, tmp_path):
    folder, url, process = servers("gan_digits")
    assert listening(process.pid) == {"127.0.0.1"}
    tab = Tab(browser, url)
    tab.page.locator(".outputs img").wait_for()
    seen = {tab.image(): tab.command()}
    for label, value, flag in [
        ("number input for Number of samples", 6, "--num=6"),
        ("Seed", 7, "--seed=7"),
        ("number input for Latent 0", 2.5, "--latent=0:2.5"),
        ("Other latents, 0 to 63", "9:-1", "--latent=0:2.5,9:-1.0"),
    ]:
        command = tab.change(lambda label=label, value=value: tab.fill(label, value))
        assert flag in command
        seen[tab.image()] = command
    slider = tab.page.get_by_label("range slider for Latent 1", exact=True)
    press = lambda name: tab.page.get_by_role("button", name=name).click()
    for act, expected in [
        (lambda: slider.press("ArrowRight"), "--latent=0:2.5,1:[-.0-9]+,9:-1.0"),
        (lambda: tab.choose("Class", "3"), "--seed=7 --latent=9:-1.0 --class=3"),
        (lambda: press("Reset latents"), "--seed=7 --class=3"),
        (lambda: press("New seed"), "--what=prior --num=6 --seed=[0-9]+ --class=3"),
        (
            lambda: tab.choose("Sampler", "interpolation"),
            "--what=interpolation --num=6 --seed=[0-9]+",
        ),
    ]:
        command = tab.change(act)
        assert re.search(f"{expected}$", command), command
        seen[tab.image()] = command
    assert len(seen) == 10
    for content, command in list(seen.items())[4:8:2]:
        run_again(command, folder, out=tmp_path / "a.png")
        assert (tmp_path / "a.png").read_bytes() == content, command
    tab.check_clean(url)


def test_an_uploaded_image_is_reconstructed_or_refused(browser, servers, tmp_path):
    folder, url, _ = servers("vae_digits")
    tab = Tab(browser, url, 390)
    tab.page.get_by_role("tab", name="Upload").click()
    upload = lambda path: tab.page.locator("input[type=file]").set_input_files(path)
    (folder / "photo.png").write_bytes(photo())
    command = tab.change(lambda: upload(folder / "photo.png"))
    assert "--input=photo.png" in command
    tab.page.get_by_alt_text("The model's input").wait_for()
    content = tab.image()
    run_again(command, folder, out=tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == content
    tab.change(lambda: tab.fill("Seed", 3))
    assert tab.image() != content
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


def test_text_is_streamed_and_equals_that_of_the_command(browser, servers):
    folder, url, _ = servers("rnn_pydoc")
    tab = Tab(browser, url)
    tab.page.get_by_label("Prompt").fill("it's <b>a prompt</b>\nof two lines")
    tab.fill("number input for tokens", 200)
    text, seen = tab.page.locator(".outputs textarea >> visible=true").first, {}
    generate = lambda: tab.page.get_by_role("button", name="Generate").click()

    def finished():
        lengths = [0, len(text.input_value())]
        while lengths[-1] != lengths[-2] or not lengths[-1]:
            tab.page.wait_for_timeout(1000)
            lengths.append(len(text.input_value()))
        return text.input_value()

    for label, value, flag in [
        ("Seed", 1, "--seed=1"),
        ("number input for temperature", 0.5, "--temperature=0.5"),
        ("top_k", 5, "--top_k=5"),
        ("number input for repetition", 1.5, "--repetition=1.5"),
    ]:
        tab.fill(label, value)
        command = tab.change(generate)
        seen[finished()] = command
        assert flag in command
    assert len(seen) == 4 and all(t.startswith("it's <b>a prompt</b>\nof two") for t in seen)
    for content, command in list(seen.items())[1::2]:
        assert run_again(command, folder).removesuffix("\n") == content, command
    tab.check_clean(url)
