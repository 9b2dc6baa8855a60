"""Text corpora: sources, cleaning, caching and errors."""

import os
import sys
import types

import pytest
from texts import CHINESE, PLAY, load, section, split_texts

from aigc_jax import data
from aigc_jax.data import cleaning, files, tokenizers
from aigc_jax.data import corpora as module
from aigc_jax.data.dataset import hash_arrays_and_splits
from aigc_jax.utils.disk import cache_dir
from aigc_jax.utils.errors import UserError
from aigc_jax.utils.files import split_lines

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("own_cache")]


def test_cleaning(tmp_path):
    text = "Ｆｕｌｌ ﬁ E\u0301 The end\x07\x7f\x85\r\n\tof THE stop-word"
    clean = lambda **more: cleaning.make_cleaner(section(**more), more.get("script", "as_is"))(text)
    assert clean() == text
    assert clean(normalize="NFC") == text.replace("E\u0301", "É") and clean(
        normalize="NFKC"
    ).startswith("Full fi É ")
    assert clean(normalize="NFD") == text and clean(normalize="NFKD").startswith("Full fi E\u0301 ")
    assert clean(lower=True) == text.lower()
    assert clean(control="drop").endswith("The end\n\tof THE stop-word")
    (tmp_path / "stop.txt").write_text("The\r\nword\nTHE")
    assert clean(stop_words=str(tmp_path / "stop.txt"), control="drop").endswith(
        "  end\n\tof  stop-"
    )
    (tmp_path / "stop.txt").write_text("THE")
    assert clean(stop_words=str(tmp_path / "stop.txt"), lower=True, control="drop").endswith(
        "  end\n\tof  stop-word"
    )


def test_simplified_script_uses_opencc_or_a_simplified_file(tmp_path, monkeypatch):
    converter = lambda name: types.SimpleNamespace(
        convert=lambda text: text.replace("壯", "壮") if name == "t2s" else ""
    )
    monkeypatch.setitem(sys.modules, "opencc", types.SimpleNamespace(OpenCC=converter))
    assert (
        "函谷壮皇居"
        in split_texts(load(tmp_path / "a.txt", CHINESE * 9, script="simplified"))["train"]
    )
    monkeypatch.setitem(sys.modules, "opencc", None)
    with pytest.raises(
        UserError,
        match="^config.data.script = 'simplified' needs the package opencc: pip install opencc$",
    ):
        load(tmp_path / "a.txt", script="simplified")
    poems = tmp_path / "tang_poems"
    poems.mkdir()
    (poems / "tang_20k.txt").write_text(CHINESE * 30, "utf-8")
    (poems / "tang_20k_simplified.txt").write_text(CHINESE.replace("壯", "壮") * 30, "utf-8")
    ds = data.load(section(name="tang_poems", script="simplified"), str(tmp_path))
    assert (
        list(ds.about["files"]) == ["tang_20k_simplified.txt"]
        and ds.about["text"]["documents"] == 60
    )
    assert "壯" in ds.tokenizer.decode(
        data.load(section(name="tang_poems"), str(tmp_path)).arrays["tokens"]
    )


def test_tokens_are_cached_until_the_inputs_change(tmp_path, monkeypatch, capsys):
    calls = []
    real = tokenizers.build
    monkeypatch.setattr(tokenizers, "build", lambda *args: calls.append(args) or real(*args))
    first = load(tmp_path / "a.txt", PLAY, tokenizer="bpe", vocabulary=270)
    again = load(tmp_path / "a.txt", tokenizer="bpe", vocabulary=270)
    assert (
        len(calls) == 1
        and hash_arrays_and_splits(first) == hash_arrays_and_splits(again)
        and again.tokenizer.files == first.tokenizer.files
    )
    assert (first.splits, first.spec, first.about) == (
        again.splits,
        again.spec,
        again.about,
    ) and not again.arrays["tokens"].flags.writeable
    for more in (
        dict(vocabulary=280),
        dict(length=9),
        dict(lower=True),
        dict(split="90/10"),
        dict(tokenizer="words"),
    ):
        load(tmp_path / "a.txt", **dict(tokenizer="bpe", vocabulary=270) | more)
    assert len(calls) == 6
    cache, wanted = cache_dir("texts"), hash_arrays_and_splits(first)
    for bad in (lambda whole: whole[:-40], lambda whole: whole[:-1] + b"\xee", lambda whole: b""):
        for kind in ("npy", "json"):
            for path in cache.glob(f"*.{kind}"):
                path.write_bytes(bad(path.read_bytes()))
            calls.clear()
            found = load(tmp_path / "a.txt", tokenizer="bpe", vocabulary=270)
            assert hash_arrays_and_splits(found) == wanted
            assert len(calls) == 1 and "is damaged: tokenizing again" in capsys.readouterr().err
    assert not list(cache.glob("*.part"))
    load(tmp_path / "a.txt", PLAY + "more", tokenizer="bpe", vocabulary=270)
    assert len(calls) == 2
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    load(tmp_path / "a.txt", PLAY)
    assert "tokens cannot be cached in" in capsys.readouterr().err


def test_path_can_be_a_file_directory_or_glob(tmp_path, monkeypatch):
    folder = tmp_path / "books"
    (folder / "inner").mkdir(parents=True)
    for name in ("b.txt", "inner/a.md", "c.html", ".hidden.txt"):
        (folder / name).write_text(PLAY + name)
    for path, names in (
        (folder, ["b.txt", "inner/a.md"]),
        (folder / "*.html", ["c.html"]),
        (folder / "**" / "[a-b].*", ["b.txt", "inner/a.md"]),
        (folder / "c.html", ["c.html"]),
    ):
        ds = load(path)
        assert (
            list(ds.about["files"]) == names
            and ds.about["text"]["documents"] == len(names)
            and ds.about["licence"] == "the user's own"
        )
        assert ds.about["files"][names[0]] == files.file_sha256(folder / names[0])
    monkeypatch.setenv("AIGC_DATA_DIR", str(tmp_path))
    assert data.load(section(name="text", path="books")).about["text"]["documents"] == 2


def test_pydoc_and_stdlib_texts_load(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AIGC_DATA_DIR", raising=False)
    pydoc = data.load(section(name="pydoc"))
    assert pydoc.about["text"]["documents"] > 70 and "statement" in split_texts(pydoc)["valid"]
    root = tmp_path / "python"
    for name in (
        "a.py",
        "json/b.py",
        "test/no.py",
        "json/tests/no.py",
        "site-packages/no.py",
        "__pycache__/no.py",
        "no.txt",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"name = {name!r}\n" * 20)
    (root / "latin.py").write_bytes(b"# \xe9\n")
    real = data.load(section(name="stdlib", length=256))
    assert {"ast.py", "json/decoder.py"} <= set(real.about["files"]) and not any(
        "test" in f.split("/")[:-1] for f in real.about["files"]
    )
    monkeypatch.setattr(module.sysconfig, "get_path", lambda name: str(root))
    assert list(data.load(section(name="stdlib", length=4)).about["files"]) == ["a.py", "json/b.py"]


def test_real_corpora_load(real_data):
    ds = data.load(section(name="shakespeare", tokenizer="characters", length=64, split="90/10"))
    assert (
        ds.spec.vocabulary == 67
        and ds.splits["valid"][1] == 1742
        and ds.about["text"]["tokens"] == 1_115_394
    )
    assert split_texts(ds)["train"].startswith(
        "First Citizen:\nBefore we proceed any further, hear me speak.\n"
    )
    assert split_texts(ds)["valid"].startswith("?\n\nGREMIO:\nGood morrow, neighbour Baptista.\n")
    poems = data.load(section(name="tang_poems", tokenizer="characters"))
    assert poems.about["text"]["documents"] == 20_011 and poems.spec.vocabulary == 7_235 + 2
    tunes = data.load(section(name="nottingham", tokenizer="characters"))
    assert tunes.about["text"]["documents"] == 1_034 and len(tunes.about["files"]) == 14
    assert split_texts(tunes)["train"].startswith("X:")
    novel = data.load(section(name="journey_to_the_west", tokenizer="characters"))
    assert (
        split_texts(novel)["train"].startswith("第一回：灵根育孕源流出，心性修持大道生\n")
        and novel.about["text"]["documents"] == 1
    )


def test_missing_or_damaged_corpora_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AIGC_DATA_DIR", raising=False)
    for name, words in (
        ("shakespeare", "aigc data --name=shakespeare --download"),
        ("tang_poems", "tang_20k.txt not found"),
        ("journey_to_the_west", "xiyouji.txt, the novel as UTF-8 text"),
        ("nottingham", "*.abc not found"),
    ):
        with pytest.raises(UserError) as e:
            data.load(section(name=name), str(tmp_path / "b"))
        assert (
            words in str(e.value)
            and str(tmp_path / "b") in str(e.value)
            and str(tmp_path / "tensorflow_datasets") in str(e.value)
        )
    (tmp_path / "b" / "tiny_shakespeare").mkdir(parents=True)
    (tmp_path / "b" / "tiny_shakespeare" / "input.txt").write_text("First Citizen")
    with pytest.raises(UserError, match="input.txt is damaged .* --name=shakespeare --download"):
        data.load(section(name="shakespeare"), str(tmp_path / "b"))


def test_mistakes_raise_one_line_errors(tmp_path):
    play = tmp_path / "play.txt"
    play.write_text(PLAY)
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.txt").write_text("")
    (tmp_path / "nul.txt").write_bytes(b"ab\0c")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    mistakes = (
        ("", {}, "config.data.path = '' must name a file, a directory or a glob"),
        (tmp_path / "pley.txt", {},
            "that matches a file, for config.data.name = 'text'; did you mean 'play.txt'?"),
        (tmp_path / "*.rst", {}, "or a glob that matches a file"),
        (tmp_path / "empty", {}, "has no file that ends in .txt, .md"),
        (tmp_path / "none.txt", {}, "none.txt is empty"),
        (tmp_path / "nul.txt", {}, "nul.txt is not text: it has a NUL at character 2"),
        (tmp_path / "latin.txt", {},
            "latin.txt is not UTF-8 text: unexpected end of data at byte 3"),
        (play, dict(split="80/10"),
            "config.data.split = '80/10' is none of 80/10/10, 90/10, 80/20; did you mean '90/10'?"),
        (play, dict(tokenizer="byte"),
            "config.data.tokenizer = 'byte' is none of bytes, characters, words, "
            "chinese_words, bpe, file; did you mean 'bytes'?"),
        (play, dict(normalize="nfc"),
            "config.data.normalize = 'nfc' is none of NFC, NFKC, NFD, NFKD"),
        (play, dict(control="remove"), "config.data.control = 'remove' is none of keep, drop"),
        (play, dict(script="simple"),
            "config.data.script = 'simple' is none of as_is, simplified; did you mean "
            "'simplified'?"),
        (play, dict(stop_words="gone.txt"), "config.data.stop_words = 'gone.txt': no such file"),
        (play, dict(length=0), "config.data.length = 0 tokens must be at least 1"),
        (play, dict(length=len(PLAY)),
            f"is too long: the train split has {len(PLAY) * 8 // 10:,} tokens and a window "
            f"needs {2 * len(PLAY):,}"),
        (play, dict(length=len(PLAY) // 4), "is too long: the valid split has"),
        (play, dict(vocabulary=300),
            "config.data.vocabulary = 300 must be 0 or 258 for config.data.tokenizer = 'bytes'"),
        (play, dict(tokenizer="bpe", vocabulary=257),
            "config.data.vocabulary = 257 must be 0 or at least 258 for "
            "config.data.tokenizer = 'bpe'"),
        (play, dict(tokenizer="words", vocabulary=3),
            "config.data.vocabulary = 3 must be 0 or at least 4"),
        (play, dict(tokenizer="characters", vocabulary=-1),
            "config.data.vocabulary = -1 must be 0 or at least 4"),
        (play, dict(tokenizer="file"),
            "config.data.tokenizer_path = '' must name a tokenizer.json or a run directory"),
        (play, dict(tokenizer="file", tokenizer_path=str(tmp_path / "empty")),
            "tokenizer.json: no such file"),
    )  # fmt: skip
    for path, more, words in mistakes:
        with pytest.raises(UserError) as e:
            load(path, **more)
        assert words in str(e.value) and "\n" not in str(e.value), str(e.value)


def test_byte_order_marks_and_line_endings_are_handled(tmp_path):
    (tmp_path / "stop.txt").write_bytes("\ufeffThe\r\nword\r\n".encode())
    clean = cleaning.make_cleaner(section(stop_words=str(tmp_path / "stop.txt")), "as_is")
    assert clean("The last word") == " last "
    (tmp_path / "crlf.txt").write_bytes(("\ufeff" + PLAY.replace("\n", "\r\n")).encode())
    for name in ("bytes", "characters", "bpe"):
        ds = load(tmp_path / "crlf.txt", tokenizer=name, vocabulary=300 * (name == "bpe"))
        text = split_texts(ds)["train"]
        assert text.startswith("ROMEO:\r\n") and "\ufeff" not in text and "\r\n" in text
        assert ds.tokenizer.decode([ds.spec.start]) in ("\n", "\r\n")
    one_line = load(tmp_path / "line.txt", "\ufeff" + "abcdefgh" * 20, tokenizer="bytes")
    assert one_line.spec.start == ord("a")
    (tmp_path / "wide.txt").write_text(PLAY, "utf-16")
    with pytest.raises(UserError, match="wide.txt is UTF-16 text by its byte order mark"):
        load(tmp_path / "wide.txt")


def test_lines_split_only_at_line_feeds():
    text = "a\x0cb\x85c\u2028d\r\n\ne\rf\n"
    assert split_lines(text) == ["a\x0cb\x85c\u2028d", "", "e\rf"]
    assert split_lines("") == [] and split_lines("a\nb") == ["a", "b"]


def test_poems_split_only_at_line_feeds(tmp_path):
    (tmp_path / "tang_poems").mkdir()
    poems = [f"秦川雄帝宅\u2028函谷壯皇居{i}" for i in range(60)]
    (tmp_path / "tang_poems" / "tang_20k.txt").write_bytes(
        ("\ufeff" + "\r\n".join(poems) + "\r\n").encode()
    )
    ds = data.load(section(name="tang_poems"), str(tmp_path))
    assert ds.about["text"]["documents"] == 60 and ds.about["text"]["characters"] == sum(
        map(len, poems)
    )


def test_non_regular_text_files_are_skipped_or_refused(tmp_path, capsys):
    books = tmp_path / "books"
    books.mkdir()
    (books / "a.txt").write_text(PLAY)
    (tmp_path / "outside.txt").write_text(PLAY)
    os.mkfifo(books / "b.txt")
    (books / "c.txt").symlink_to(tmp_path / "outside.txt")
    for path in (books, books / "*.txt"):
        ds = load(path)
        said = capsys.readouterr().err
        assert (
            "b.txt: is a FIFO" in said
            and "a.txt" in ds.about["files"]
            and "b.txt" not in ds.about["files"]
        )
    assert "c.txt" in ds.about["files"]  # links out of a directory are only read if a glob matches
    with pytest.raises(
        UserError, match="stop_words = '.*b.txt' is a FIFO, and must be a regular file"
    ):
        load(books / "a.txt", stop_words=str(books / "b.txt"))
    with pytest.raises(UserError, match="is a FIFO, and must be a regular file"):
        load(books / "a.txt", tokenizer="file", tokenizer_path=str(books / "b.txt"))
    for path in ("x" * 5000, "~nobody_of_this_name/x", "a\0b"):
        with pytest.raises(UserError, match="is not a file, a directory"):
            load(path)
