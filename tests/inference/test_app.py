"""The functions behind the controls of a run's page, the server and its refusals. The
page in a browser: tests/browser/test_app_browser.py.
"""

import importlib.util
import os
import shlex
import socket
import sys
from argparse import Namespace

import jax
import numpy as np
import pytest
from gpt2_directories import write_directory
from helpers import command_line
from image_files import animated_gif, declared_png, photo
from PIL import Image
from runs import train
from tiny_configs import tiny

from aigc_jax.cli import app as verb
from aigc_jax.cli import main as cli
from aigc_jax.inference import app, app_server, conditioning
from aigc_jax.inference.load import load
from aigc_jax.methods.decoding import SamplingParams
from aigc_jax.utils.errors import UserError

QUIET = dict(run__eval_every="never", run__save_every="never", run__sample_every="never")


@pytest.fixture(scope="module", autouse=True)
def own_environment(tmp_path_factory):
    """Gradio is imported with its files in a folder of the tests, which it uses until
    the process ends; the variables of its import are removed.
    """
    before = dict(os.environ)
    if importlib.util.find_spec("gradio"):
        app_server.import_gradio(tmp_path_factory.mktemp("gradio"))
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def make_page(tmp_path_factory):
    """(method, overrides) -> the functions of the page of a run, trained at its first
    use.
    """
    found = {}

    def make(name, **more):
        key = name, str(more)
        if key not in found:
            folder = tmp_path_factory.mktemp("app")
            steps = 8 if name in ("lm", "mlm", "seq2seq") else 1  # more than their warmup
            train(
                tiny(name, steps=steps, metrics=(), best_metric="", **QUIET, **more), folder / "run"
            )
            args = Namespace(workdir=str(folder / "run"), checkpoint="latest")
            out = folder / "out"
            out.mkdir()
            found[key] = verb.make_functions(load(args.workdir), args, "aigc", out)
        return found[key]

    return make


@pytest.fixture
def again(monkeypatch, tmp_path, capsys):
    """(command, page) -> the bytes of the image, or the text, of a printed command."""

    def call(command, page):
        monkeypatch.setattr("aigc_jax.inference.load.load", lambda *_: page.run)
        words = shlex.split(command)
        assert words[:2] == ["aigc", "sample"]
        if page.run.is_text:
            capsys.readouterr()
            assert cli.main(words[1:]) == 0
            return capsys.readouterr().out.removesuffix("\n")
        out = tmp_path / "again.png"
        assert cli.main([*words[1:], f"--out={out}"]) == 0, capsys.readouterr().err
        return out.read_bytes()

    return call


# -- latents


def test_latents_are_parsed_and_formatted():
    assert conditioning.parse_latents(" 3:-0.2, 0:1.5 ") == {0: 1.5, 3: -0.2}
    assert conditioning.format_latents({3: -0.2, 0: 1.5}) == "0:1.5,3:-0.2"
    assert conditioning.parse_latents("") == {} and conditioning.format_latents({}) == ""


@pytest.mark.parametrize("text", ["1", "a:1", "1:b", "1.5:2", "1:2:3", "1:1,1:2"])
def test_wrong_latents_are_refused(text):
    with pytest.raises(UserError, match="latent"):
        conditioning.parse_latents(text)


@pytest.mark.parametrize("name", ["gan", "vae", "gan_points"])
def test_set_latents_replace_those_of_the_prior_alone(name, make_page):
    """The latents that are drawn, set again, give the same samples; another one changes
    them.
    """
    run = make_page(name).run
    size = conditioning.count_latents(run, "prior")
    drawn = dict(enumerate(conditioning.draw_latents(run, "prior", 5).astype(float).tolist()))
    one = run.draw(1, "prior", 5)
    tolerance = 2 / 16 + 1e-6 if run.spec.levels else 1e-5  # a grey level
    np.testing.assert_allclose(run.draw(1, "prior", 5, latents=drawn), one, atol=tolerance)
    both = run.draw(2, "prior", 5, latents=drawn)
    np.testing.assert_array_equal(both[0], both[1])
    few, many = (run.draw(n, "prior", 5, latents={size - 1: 2.5}) for n in (2, 20))
    np.testing.assert_array_equal(few, many[:2])  # however many are drawn
    assert (few[0] != one[0]).any() and (few[0] != few[1]).any()
    none = run.programs.draw(
        run.states, "prior", 2, seed=5, latents=np.full(size, np.nan, np.float32)
    )
    np.testing.assert_allclose(
        none, run.programs.draw(run.states, "prior", 2, seed=5), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    "words, answer",
    [
        (["--latent=3:1", "--what=interpolation"], "--what=interpolation of this run has none"),
        (["--latent=99:1"], "the latent 99 must be one of 0 .. 2"),
        (["--latent=0:nan"], "--latent=nan must be a number in [-100.0, 100.0]"),
        (["--latent=x"], "'x' is no LATENT:VALUE, such as 0:1.5"),
        (["--latent=0:1", "--what=neighbours"], "--latent applies to --what=prior"),
        (["--latent=0:1", "--input=a.png"], "--latent and --input are mutually exclusive"),
        (["--input=a.png", "--what=reconstruction"], "--input=a.png"),
        (["--input=a.png", "--what=prior"], "--input=a.png"),
    ],
)
def test_wrong_flags_of_latents_and_images_are_refused(words, answer, make_page, capsys):
    folder = make_page("vae").run.dir.path
    capsys.readouterr()  # of its training, where this test is the first to use it
    assert cli.main(["sample", f"--workdir={folder}", *words]) == 1
    err = capsys.readouterr().err
    assert answer in err and len(err.splitlines()) == 1


# -- outputs equal those of their commands


def test_samples_equal_those_of_the_printed_command(make_page, again):
    page = make_page("vae", conditional=True)
    places = page.latent_values("prior", 3, 4)
    assert len(places) == 3 and all(abs(x) <= 3 for x in places)
    moved = [places[0], 1.25, places[2]]
    outputs = [
        page.draw_images("prior", 5, 3),
        page.draw_images("prior", 5, 4),
        page.draw_images("prior", 5, 3, 4),
        page.draw_images("prior", 5, 3, 4, sliders=moved),
        page.draw_images("prior", 5, 3, 4, sliders=places, other_latents="2:-0.5"),
        page.draw_images("interpolation", 8, 3, 4),
        page.draw_images("latents", 12, 3, split="valid"),
        page.draw_images("log_likelihood", 4, 3, split="valid"),
        page.draw_images("reconstruction", 4, 3, split="train"),
    ]
    files = [output.value.read_bytes() for output in outputs]
    assert len(set(files)) == len(files)
    for output, content in zip(outputs, files, strict=True):
        assert again(output.command, page) == content, output.command
    assert "--latent=1:1.25" in outputs[3].command and "--class=4" in outputs[3].command
    assert "--latent" not in page.draw_images("prior", 5, 3, 4, sliders=places).command
    assert "--split=train" in outputs[-1].command


@pytest.mark.parametrize("name", ["vae", "vqvae", "classifier"])
def test_uploads_equal_those_of_the_printed_command(name, make_page, again, tmp_path, monkeypatch):
    page, file = make_page(name), tmp_path / "my photo.png"
    file.write_bytes(photo())
    samplers = page.find_upload_samplers()
    own = dict(vae=["reconstruction", "latents", "log_likelihood"], classifier=["saliency"])
    assert samplers == own.get(name, ["reconstruction"])
    outputs = [page.draw_from_upload(what, str(file), 2) for what in samplers]
    monkeypatch.chdir(tmp_path)
    for output in outputs:
        assert "'--input=my photo.png'" in output.command
        assert again(output.command, page) == output.value.read_bytes()
    if name == "classifier":
        chances = page.classify_upload(str(file)).value
        assert len(chances) == 10 and sum(chances.values()) == pytest.approx(1, abs=1e-5)


def test_an_uploaded_example_is_reconstructed_as_the_example(make_page, tmp_path):
    """An example of the data, saved as an image, has its pixels again, and the
    reconstruction of one that is drawn from the split.
    """
    run = make_page("vqvae").run
    example, right = run.draw(1, "reconstruction")[0]
    Image.fromarray(((example[..., 0] + 1) * 127.5 + 0.5).astype(np.uint8)).save(tmp_path / "a.png")
    image = conditioning.read_image(tmp_path / "a.png", run.spec)
    assert np.abs(image - example).max() < 1.01 / 255  # rounded to 255 levels, of 16
    np.testing.assert_array_equal((image + 1) * 8 % 1, 0)
    again = run.draw(what="reconstruction", image=image)[0]
    with pytest.raises(UserError, match="latent and input are mutually exclusive"):
        run.draw(what="reconstruction", image=image, latents={0: 1.0})
    np.testing.assert_allclose(again, [example, right], atol=2.01 / 255)  # one level apart


def test_a_conditional_vae_needs_the_class_of_an_upload(make_page, again, tmp_path, monkeypatch):
    page = make_page("vae", conditional=True)
    (tmp_path / "a.png").write_bytes(photo())
    with pytest.raises(UserError, match="the class of the image"):
        page.draw_from_upload("reconstruction", str(tmp_path / "a.png"), 0)
    outputs = [
        page.draw_from_upload("reconstruction", str(tmp_path / "a.png"), 0, k) for k in (0, 7)
    ]
    monkeypatch.chdir(tmp_path)
    files = [output.value.read_bytes() for output in outputs]
    assert [again(output.command, page) for output in outputs] == files and len({*files}) == 2


def test_text_equals_that_of_the_printed_command(make_page, again):
    page = make_page("lm")
    usual = SamplingParams()._asdict()
    for prompt, change in [
        ("", {}),
        ("it's\n", dict(temperature=0.7, top_k=5)),
        ('<b> "x"; (y)', dict(top_p=0.9)),
    ]:
        pieces = list(page.stream_text(prompt, 20, 3, **usual | change))
        assert len(pieces) > 1 and all(p.command == pieces[0].command for p in pieces)
        assert again(pieces[-1].command, page) == pieces[-1].value
        assert ("--top_k=5" in pieces[0].command) == ("top_k" in change)
    output = page.draw_texts("text", 2, 1)
    assert again(output.command, page) == output.value and output.value.count("----") == 1


@pytest.mark.parametrize("name", ["seq2seq", "mlm"])
def test_translations_and_filled_masks_equal_those_of_the_command(name, make_page, again):
    page = make_page(name)
    outputs = [page.draw_texts(page.find_text_samplers()[0], 2, 1, "valid")]
    if name == "seq2seq":
        assert page.is_translator
        outputs.append(page.translate("1234\n77"))
    for output in outputs:
        assert again(output.command, page) == output.value, output.command


def test_commands_of_the_launcher_give_the_same_bytes(make_page, tmp_path):
    page = make_page("gan")
    for output in (
        page.draw_images("prior", 4, 1, other_latents="0:1.5,3:-0.2"),
        page.draw_images("interpolation", 4, 1),
    ):
        words = shlex.split(output.command)[1:]
        done = command_line(*words, f"--out={tmp_path / 'a.png'}")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "a.png").read_bytes() == output.value.read_bytes()


# -- compiled once


def test_moved_controls_compile_nothing(make_page, tmp_path):
    """Sliders, seeds, classes and numbers are inputs of compiled programs."""
    vae, lm = make_page("vae", conditional=True), make_page("lm")
    (tmp_path / "a.png").write_bytes(photo())
    (tmp_path / "b.png").write_bytes(photo((64, 64)))

    def use(seed, label, value, file, **sampling):
        places = vae.latent_values("prior", seed, label)
        vae.draw_images("prior", 4, seed, label)
        vae.draw_images("prior", 4, seed, label, sliders=[value, *places[1:]])
        vae.draw_from_upload("reconstruction", str(tmp_path / file), seed, label)
        list(lm.stream_text("a prompt", 8, seed, **SamplingParams(**sampling)._asdict()))

    use(1, 2, 0.5, "a.png", temperature=0.9, top_p=0.9, min_p=0.1, repetition=1.2)
    seen = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: seen.append(name))
    use(2, 3, -1.5, "b.png", temperature=0.3, top_p=0.5, min_p=0.01, repetition=1.4)
    assert not [name for name in seen if "backend_compile" in name]
    use(2, 3, -1.5, "b.png", top_k=3)  # k is a shape
    assert [name for name in seen if "backend_compile" in name]


# -- refusals


@pytest.mark.parametrize(
    "name, content, reason",
    [
        (
            "large.png",
            declared_png(10_000, 10_000),
            "10,000 x 10,000 pixels are more than 25 megapixels",
        ),
        ("bomb.png", declared_png(30_000, 30_000), "more than 25 megapixels"),
        ("damaged.png", photo()[:60], "cannot be used"),
        ("text.png", b"only text", "it is no image of the formats PNG, JPEG"),
        ("a.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "it is no image of the formats"),
        ("a.gif", animated_gif(), "it is an animation"),
        ("tiny.png", photo((4, 4)), "4 x 4 pixels are fewer than 8 per side"),
        ("long.png", photo() + bytes(conditioning.MOST_FILE_BYTES), "has more than 16 MB"),
    ],
)
def test_untrusted_uploads_are_refused(name, content, reason, make_page, tmp_path, capsys):
    page, path = make_page("vqvae"), tmp_path / name
    path.write_bytes(content)
    for use in (page.preview_upload, lambda p: page.draw_from_upload("reconstruction", p, 0)):
        with pytest.raises(UserError, match=reason):
            use(str(path))
    words = ["sample", f"--workdir={page.run.dir.path}", f"--input={path}"]
    assert cli.main(words) == 1 and reason in capsys.readouterr().err


@pytest.mark.parametrize(
    "values, reason",
    [
        (dict(num=0), "num=0"),
        (dict(num=257), "num=257"),
        (dict(num=None), "num is empty: a number is needed, such as 1"),
        (dict(num=5000), r"num=5000 must be an integer in \[1, 256\]"),
        (dict(seed=-1), "seed=-1"),
        (dict(seed=None), "seed is empty: a number is needed, such as 0"),
        (dict(seed=" "), "seed is empty"),
        (dict(seed="1.5"), "seed=1.5 must be an integer"),
        (dict(seed="9" * 20), "seed=99999999999999999999 must be an integer"),
        (dict(sliders=[None]), "latent is empty"),
        (dict(sliders=[5000]), r"latent=5000 must be a number in \[-100"),
        (dict(seed=2**32), "seed=4294967296"),
        (dict(other_latents="0"), "'0' is no LATENT:VALUE"),
        (dict(other_latents="0:inf"), "latent=inf"),
        (
            dict(sliders=[9.5], other_latents="0:1"),
            r"latent 0 is set by its slider \(9.5\) and in the field of other latents \(1\)",
        ),
    ],
)
def test_wrong_numbers_of_the_page_are_refused(values, reason, make_page):
    with pytest.raises(UserError, match=reason):
        make_page("vae").draw_images(**dict(what="prior", num=1, seed=0) | values)


def test_a_typed_seed_is_that_number(make_page):
    page = make_page("vae")
    typed, number = (page.draw_images("prior", 1, seed) for seed in (" 7 ", 7))
    assert typed.value.read_bytes() == number.value.read_bytes()
    assert typed.command == number.command and "--seed=7" in typed.command


def test_samples_fill_the_rows_of_their_grid(make_page, again):
    """No column of an interpolation or a traversal is empty, and a line says so."""
    page = make_page("vae", conditional=True)
    for what, num, columns in [
        ("interpolation", 3, 8),
        ("interpolation", 16, 8),
        ("traversal", 17, 8),
        ("prior", 1, 10),
    ]:
        output, full = page.draw_images(what, num, 0), -(-num // columns) * columns
        note = f"{what} is drawn in rows of {columns}: {full} samples"
        assert list(output.notes) == [note] * (num != full)
        right = page.draw_images(what, full, 0)
        assert output.value.read_bytes() == right.value.read_bytes() and not right.notes
        assert again(output.command, page) == right.value.read_bytes()
    assert not page.draw_images("prior", 3, 0, 4).notes  # one class has no columns
    assert not page.draw_images("reconstruction", 3, 0).notes


def test_wrong_prompts_are_refused(make_page):
    page, usual = make_page("lm"), SamplingParams()._asdict()
    for prompt, reason in [
        ("a" * 20_001, "20,001 characters"),
        ("\0", "NUL"),
        ("\ud800", "Unicode"),
    ]:
        with pytest.raises(UserError, match=reason):
            next(page.stream_text(prompt, 1, 0, **usual))
    for change in (
        dict(tokens=0),
        dict(tokens=3000),
        dict(seed=-1),
        dict(temperature=-1),
        dict(tokens=None),
        dict(top_k=None),
        dict(seed=""),
    ):
        values = dict(prompt="a", tokens=1, seed=0) | usual | change
        with pytest.raises(UserError, match=next(iter(change))):
            next(page.stream_text(**values))


def test_without_the_extra_one_error_names_it(make_page, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert cli.main(["app", str(make_page("gan").run.dir.path), "--port=0"]) == 1
    assert capsys.readouterr().err == (
        "error: the page of a run needs the package gradio: pip install 'aigc_jax[app]'\n"
    )


@pytest.mark.parametrize(
    "words, answer",
    [
        (["no_such_run"], "no_such_run"),
        (["runs", "--port=65536"], "--port=65536 must be an integer in [0, 65535]"),
        (["runs", "--checkpoint=newest", "--port=0"], "--checkpoint = 'newest'"),
        (["runs", "--host=0.0.0.0"], "app takes no --host"),
        ([], "RUN"),
    ],
)
def test_wrong_flags_of_the_page_are_refused(words, answer, capsys):
    pytest.importorskip("gradio", reason="gradio is not installed (extra: app)")
    assert cli.main(["app", *words]) == 1
    assert answer in capsys.readouterr().err


def test_files_that_were_not_uploaded_are_refused(make_page, tmp_path):
    page = make_page("vqvae")
    (page.folder / "a.png").write_bytes(photo())
    page.check_upload(str(page.folder / "a.png"))
    (page.folder / "link.png").symlink_to(tmp_path / "b.png")
    for path in (tmp_path / "b.png", page.folder / ".." / "b.png", page.folder / "link.png"):
        with pytest.raises(UserError, match="png was not uploaded to this page"):
            page.check_upload(str(path))


# -- the server


def test_the_server_listens_on_this_machine_alone(capsys):
    with app_server.open_socket(0) as listener:
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(UserError, match=f"port={port} cannot be used"):
            app_server.open_socket(port)
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.2", port), 1)


@pytest.fixture
def browse(make_page, tmp_path, monkeypatch):
    """A client of the server of a VAE's page."""
    pytest.importorskip("gradio", reason="gradio is not installed (extra: app)")
    from starlette.testclient import TestClient

    from aigc_jax.inference.app_page import Page

    monkeypatch.setenv("GRADIO_ALLOWED_PATHS", "/")
    gradio = app_server.import_gradio(tmp_path)
    page = Page(gradio, make_page("vae"), verb.read_hints()).build()
    application = app_server.make_application(page, tmp_path, 1000)
    return TestClient(application, base_url="http://127.0.0.1:7860")


def test_no_path_of_the_machine_and_no_other_site_is_served(browse, make_page):
    page = browse.get("/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    config = make_page("vae").run.dir.path / "config.json"
    for path in ("/etc/passwd", config.resolve(), "aigc_jax/__init__.py", "../etc/passwd"):
        assert browse.get(f"/gradio_api/file={path}").status_code in (403, 404), path
    for headers in ({"host": "example.com"}, {"origin": "http://example.com"}):
        assert browse.get("/", headers=headers).status_code == 403
        assert browse.post("/gradio_api/queue/join", headers=headers, json={}).status_code == 403
    for name in ("/etc/passwd", str(config), "https://example.com/a.png", "a/../../a.png", 1):
        for data in (dict(data=[dict(path=name)]), dict(data=[[dict(a=dict(path=name))]])):
            assert browse.post("/gradio_api/queue/join", json=data).status_code == 403, name
    for content, status in [(b"{", 403), (b"[" * 100_000, 403), (bytes(2**20 + 1), 413)]:
        assert browse.post("/gradio_api/queue/join", content=content).status_code == status
    upload = browse.post("/gradio_api/upload", files={"files": ("a.png", bytes(2000))})
    assert upload.status_code == 413


@pytest.mark.parametrize("name", ["vae", "lm"])
def test_numbers_out_of_range_reach_the_checks_of_the_page(name, make_page):
    """Gradio's own check of a slider's number would end in an error of the server."""
    gradio = pytest.importorskip("gradio", reason="gradio is not installed (extra: app)")
    from aigc_jax.inference.app_page import Page

    blocks = Page(gradio, make_page(name), verb.read_hints()).build().blocks.values()
    fields = [block for block in blocks if isinstance(block, (gradio.Slider, gradio.Number))]
    assert fields
    for field in fields:
        assert [field.preprocess(x) for x in (-1, 0, 5000, None)] == [-1, 0, 5000, None], (
            field.label
        )


def test_the_example_of_other_latents_is_valid(make_page):
    gradio = pytest.importorskip("gradio", reason="gradio is not installed (extra: app)")
    from aigc_jax.inference.app_page import Page

    page = make_page("gan", latent_dim=10)
    blocks = Page(gradio, page, verb.read_hints()).build().blocks.values()
    (other,) = (x for x in blocks if getattr(x, "label", "") == "Other latents, 0 to 9")
    assert other.visible and other.placeholder == "8:1.5,9:-0.2"
    conditioning.check_latents(page.run, "prior", conditioning.parse_latents(other.placeholder))


def test_every_sampling_parameter_has_a_control(make_page):
    gradio = pytest.importorskip("gradio", reason="gradio is not installed (extra: app)")
    from aigc_jax.inference.app_page import Page

    labels = {
        block.label
        for block in Page(gradio, make_page("lm"), verb.read_hints()).build().blocks.values()
        if hasattr(block, "label")
    }
    assert labels > {*SamplingParams._fields, "Prompt", "tokens", "Seed"}


def test_the_page_of_a_gpt2_directory(tmp_path, again):
    gradio = pytest.importorskip("gradio", reason="gradio is not installed (extra: app)")
    from aigc_jax.inference.app_page import Page

    write_directory(tmp_path / "gpt2")
    args = Namespace(workdir=str(tmp_path / "gpt2"), checkpoint="latest")
    page = verb.make_functions(load(args.workdir), args, "aigc", tmp_path)
    tabs = [name for name, _ in Page(gradio, page, {}).list_tabs()]
    assert tabs[0] == "Text" and Page(gradio, page, {}).build().blocks
    *_, last = page.stream_text("the", 5, 1, **SamplingParams()._asdict())
    assert again(last.command, page) == last.value


def test_new_seeds_differ_and_are_valid():
    seeds = {app.make_seed() for _ in range(20)}
    assert len(seeds) > 15 and all(app.check_seed(seed) == seed for seed in seeds)
