"""Downloads from a server on this machine: what is stored is verified, and a failure is
one line that leaves no file.
"""

import contextlib
import functools
import gzip
import http.server
import json
import re
import socket
import threading
from hashlib import sha256

import pooch
import pytest
from helpers import DATA
from test_data import small_mnist
from texts import PLAY, section

from aigc_jax import data
from aigc_jax.cli.main import main
from aigc_jax.data import downloads
from aigc_jax.data.downloads import SOURCES, Source, download_files
from aigc_jax.utils.errors import UserError

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("own_cache")]

NAMES = ("a.txt", "b.txt.gz")
CONTENT = {"a.txt": b"alpha\n" * 40_000, "b.txt.gz": gzip.compress(b"beta\n" * 1000)}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `files` {name: bytes}; `faults` {name: [fault of each request]}."""

    def __init__(self, files, faults, requested, *more):
        self.files, self.faults, self.requested = files, faults, requested
        super().__init__(*more)

    def do_GET(self):
        name = self.path.rpartition("/")[2]
        self.requested.append(name)
        fault = self.faults.get(name, [])[:1]
        del self.faults.get(name, [])[:1]
        if fault == ["missing"]:
            return self.send_error(404)
        body = self.files[name]
        if fault == ["silent"]:
            self.connection.settimeout(5)
            with contextlib.suppress(OSError):  # until the client gives up
                self.connection.recv(1)
            return None
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == ["changed"]:
            body = body[:-1] + b"?"
        self.wfile.write(body[: len(body) // 2] if fault == ["interrupted"] else body)
        return None

    def log_message(self, *_):
        pass


class Server:
    """A server of files, which a test changes and breaks."""

    def __init__(self, url, files, faults, requested):
        self.url, self.files, self.faults, self.requested = url, files, faults, requested

    def publish(self, monkeypatch, directory, files):
        """Replace the source of a data set by `files` {name: bytes} of this server."""
        self.files |= files
        sums = {name: sha256(content).hexdigest() for name, content in files.items()}
        monkeypatch.setitem(SOURCES, directory, Source(self.url, sums))


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(pooch.core.time, "sleep", lambda seconds: None)
    monkeypatch.delenv("AIGC_DATA_DIR", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    state = {}, {}, []
    handler = functools.partial(Handler, *state)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs=dict(poll_interval=0.01))
        thread.start()
        yield Server(f"http://127.0.0.1:{running.server_address[1]}/files/", *state)
        running.shutdown()
        thread.join()


def contents_of(folder):
    """The names and contents in a data set's directory, which also has a lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture
def published(server, monkeypatch):
    server.publish(monkeypatch, "letters", CONTENT)
    return server


def test_download_stores_verified_files_and_prints_one_line(published, tmp_path, capsys):
    target = tmp_path / "data" / "letters"
    download_files("letters", NAMES, target)
    assert contents_of(target) == CONTENT
    assert all((target / name).stat().st_mode & 0o777 == 0o644 for name in NAMES)
    size = sum(map(len, CONTENT.values())) / 1000
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == f"letters: downloaded 2 files ({size:.0f} kB) to {target}"
    assert all(line.startswith("letters: file 1 of 2, a.txt, ") for line in lines[:-1])


def test_existing_files_are_not_transferred_again(published, tmp_path, capsys):
    (tmp_path / "a.txt").write_bytes(b"the user's own")
    download_files("letters", NAMES, tmp_path)
    assert published.requested == ["b.txt.gz"]
    assert (tmp_path / "a.txt").read_bytes() == b"the user's own"
    capsys.readouterr()
    download_files("letters", NAMES, tmp_path)
    assert published.requested == ["b.txt.gz"] and capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "fault, reason",
    [
        ("changed", "its SHA-256 is not the registered one"),
        ("interrupted", "the transfer was interrupted after [0-9]+ kB of 240 kB"),
        ("missing", "the server answered 404 Not Found"),
        ("silent", "no answer within 0.1 s"),
    ],
)
def test_failed_transfers_are_one_line_and_leave_no_file(
    published, tmp_path, monkeypatch, fault, reason
):
    if fault == "silent":
        monkeypatch.setattr(downloads, "TIMEOUT", 0.1)
    published.faults["a.txt"] = [fault] * 2
    expected = f"letters: {published.url}a.txt was not downloaded: {reason}"
    with pytest.raises(UserError, match=f"^{expected}[^\n]*$"):
        download_files("letters", NAMES, tmp_path / "letters")
    assert published.requested == ["a.txt"] * (1 + downloads.RETRIES)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]


def test_files_appear_together_and_a_download_resumes(published, tmp_path):
    """A data set of half its files would be taken for a complete one."""
    published.faults["b.txt.gz"] = ["interrupted"] * 2
    with pytest.raises(UserError, match="b.txt.gz was not downloaded"):
        download_files("letters", NAMES, tmp_path / "letters")
    assert not [name for name in NAMES if (tmp_path / "letters" / name).exists()]
    download_files("letters", NAMES, tmp_path / "letters")
    assert contents_of(tmp_path / "letters") == CONTENT
    assert published.requested == ["a.txt"] + ["b.txt.gz"] * 3


def test_concurrent_downloads_transfer_each_file_once(published, tmp_path):
    load = lambda: download_files("letters", NAMES, tmp_path / "letters")
    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(published.requested) == sorted(NAMES)
    assert contents_of(tmp_path / "letters") == CONTENT


def test_unreachable_host_is_one_line(tmp_path, monkeypatch, published):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    monkeypatch.setitem(SOURCES, "letters", SOURCES["letters"]._replace(url=url))
    with pytest.raises(UserError, match="a.txt was not downloaded: the host cannot be reached$"):
        download_files("letters", NAMES, tmp_path)
    assert not any((tmp_path / name).exists() for name in NAMES)


def test_transfer_that_fails_once_is_repeated(published, tmp_path):
    published.faults |= {"a.txt": ["interrupted"], "b.txt.gz": ["changed"]}
    download_files("letters", NAMES, tmp_path)
    assert contents_of(tmp_path) == CONTENT
    assert published.requested == ["a.txt", "a.txt", "b.txt.gz", "b.txt.gz"]


def test_directory_that_cannot_be_made_is_one_line(published, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to .*/file/letters: (Not a|File)"):
        download_files("letters", NAMES, tmp_path / "file" / "letters")


def test_one_command_downloads_and_describes_a_data_set(server, tmp_path, monkeypatch, capsys):
    tunes = "".join(f"X: {i}\nT:Tune {i}\nK:G\n{'GABc ' * 40}|\n\n" for i in range(40))
    server.publish(monkeypatch, "nottingham", {"jigs.abc": tunes.encode(), "slip.abc": b"X: 99\n"})
    words = ["data", "--name=nottingham", f"--data_dir={tmp_path / 'a'}"]
    assert main(words) == 1
    assert "get it with: " in (error := capsys.readouterr().err) and "--download" in error
    assert error.startswith("error: nottingham: *.abc not found (searched ")
    server.faults["slip.abc"] = ["missing"] * 2
    assert main([*words, "--download"]) == 1
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith("error: nottingham: http") and error.endswith("404 Not Found")
    assert main([*words, "--download"]) == 0
    out = capsys.readouterr().out
    assert f"location: {tmp_path / 'a' / 'nottingham'}" in out and "41 texts" in out
    assert server.requested == ["jigs.abc", "slip.abc", "slip.abc", "slip.abc"]


def test_mnist_downloads_its_four_files(server, tmp_path, monkeypatch):
    sums = small_mnist(tmp_path / "www")
    files = {name: (tmp_path / "www" / name).read_bytes() for name in sums}
    server.publish(monkeypatch, "mnist", files)
    mnist = data.load(section(name="mnist"), str(tmp_path / "got"), download=True)
    assert mnist.spec.n_train == 10 and mnist.splits["test"][1] == 20
    assert sorted(server.requested) == sorted(sums) and mnist.about["files"] == sums
    missing = tmp_path / "got" / "mnist" / "t10k-labels-idx1-ubyte.gz"
    missing.unlink()  # as the message about a damaged file advises
    with pytest.raises(UserError, match=f"{missing.name} is missing in .*--download"):
        data.load(section(name="mnist"), str(tmp_path / "got"))
    data.load(section(name="mnist"), str(tmp_path / "got"), download=True)
    assert server.requested[4:] == [missing.name]


def test_shakespeare_downloads_one_text(server, tmp_path, monkeypatch):
    server.publish(monkeypatch, "tiny_shakespeare", {"input.txt": PLAY.encode()})
    play = data.load(section(name="shakespeare"), str(tmp_path), download=True)
    assert play.about["text"]["characters"] == len(PLAY)


def test_published_poems_become_one_line_each(server, tmp_path, monkeypatch):
    poems = [
        [dict(title="a", paragraphs=["秦川雄帝宅，", "函谷壯皇居。"] * 5)] * 20,
        [dict(paragraphs=["綺殿千尋起，"] * 8), dict(paragraphs=["離宮百雉餘。"] * 8)],
    ]
    names = ("poet.tang.0.json", "poet.tang.1000.json")
    content = [json.dumps(part, ensure_ascii=False).encode() for part in poems]
    server.publish(monkeypatch, "tang_poems", dict(zip(names, content, strict=True)))
    loaded = data.load(section(name="tang_poems"), str(tmp_path), download=True)
    text = (tmp_path / "tang_poems" / "tang_20k.txt").read_text("utf-8")
    lines = ["秦川雄帝宅，函谷壯皇居。" * 5] * 20 + ["綺殿千尋起，" * 8, "離宮百雉餘。" * 8]
    assert text == "".join(line + "\n" for line in lines)
    assert loaded.about["text"]["documents"] == 22 and set(loaded.about["files"]) == {
        "tang_20k.txt"
    }


def test_multi30k_downloads_only_missing_languages(server, tmp_path, monkeypatch):
    files = {
        f"{split}.{language}.gz": gzip.compress(f"a {language} line\n".encode() * 20)
        for split in ("train", "val", "test_2016_flickr")
        for language in ("en", "de", "fr")
    }
    server.publish(monkeypatch, "multi30k", files)
    load = lambda languages, **more: data.load(
        section(name="multi30k", languages=languages), str(tmp_path), **more
    )
    assert load("en-de", download=True).spec.n_train == 20
    assert len(server.requested) == 6 and not [n for n in server.requested if ".fr" in n]
    with pytest.raises(UserError, match="multi30k: train.fr.gz is missing in .*--download"):
        load("de-fr")
    folder = tmp_path / "multi30k"
    (folder / "train.fr").write_bytes(gzip.decompress(files["train.fr.gz"]))  # plain files count
    assert load("de-fr", download=True).spec.n_train == 20
    assert server.requested[6:] == ["val.fr.gz", "test_2016_flickr.fr.gz"]


def test_sources_match_tensorflow_datasets():
    import tensorflow_datasets as tfds

    for name in ("mnist", "fashion_mnist", "binarized_mnist", "cifar10", "tiny_shakespeare"):
        source = SOURCES[name]
        for url, info in tfds.builder_cls(name).url_infos.items():
            assert source.checksums[info.filename] == info.checksum
            assert "github" in url or url == source.url + info.filename


def test_sources_are_of_fixed_files():
    for name, source in SOURCES.items():
        assert source.url.endswith("/") and source.url.isascii(), name
        in_commit = re.search("/[0-9a-f]{40}/", source.url)
        assert in_commit or "githubusercontent" not in source.url, name
        for file, checksum in source.checksums.items():
            assert re.fullmatch("[0-9a-f]{64}", checksum), file


@pytest.mark.parametrize("name", ["multi30k", "nottingham"])
def test_checksums_are_those_of_the_real_files(name):
    if not (DATA / name).is_dir():
        pytest.skip(f"no real data: {DATA} has no {name}/ (set AIGC_DATA_DIR)")
    sums = {
        file: sha256((DATA / name / file).read_bytes()).hexdigest()
        for file in SOURCES[name].checksums
    }
    assert sums == SOURCES[name].checksums


def test_progress_counts_files_and_bytes(capsys, monkeypatch):
    transfer = downloads.Transfer("letters", 4)
    transfer.status.seconds = 0.0
    transfer.start_file(0, "a.txt")
    transfer.total = 1000
    transfer.update(700)
    transfer.update(700)  # pooch counts the last piece as a complete one
    transfer.reset()
    transfer.update(1000)
    transfer.close()
    transfer.start_file(1, "b.txt")  # of unknown size
    transfer.update(70)
    assert capsys.readouterr().err.splitlines() == [
        "letters: file 1 of 4, a.txt, 700 B of 1 kB",
        "letters: file 1 of 4, a.txt, 1 kB of 1 kB",
        "letters: file 2 of 4, b.txt, 70 B",
    ]
