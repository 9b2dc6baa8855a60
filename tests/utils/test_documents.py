"""Files of a run: round trips, and one-line errors for damaged files, other formats and
other shapes.
"""

import hashlib
import json
import os
import threading

import pytest

from aigc_jax.utils import document_shapes, documents
from aigc_jax.utils.errors import UserError

pytestmark = pytest.mark.unit

PLAN = dict(members=["a"], route="vmap", chunk=0, devices=1, seconds_a_step={"vmap": 0.5})


def with_digest(value, number=1) -> bytes:
    """A document built from the definition of the format, not by the tested code."""
    value = dict(format=number) | value
    canonical = json.dumps(value, sort_keys=True).encode()
    return json.dumps(value | dict(sha256=hashlib.sha256(canonical).hexdigest())).encode() + b"\n"


def test_document_stores_its_format_and_content_digest(tmp_path):
    path = tmp_path / "plan.json"
    documents.write(path, PLAN)
    assert json.loads(path.read_bytes()) == json.loads(with_digest(PLAN))
    assert documents.read(path) == PLAN
    assert documents.read(tmp_path / "rung.json") is None
    path.write_bytes(with_digest(PLAN))
    assert documents.read(path) == PLAN


DEEP = b'{"a": ' + b"[" * 100_000
DAMAGED = {
    "empty": (b"", "it is empty"),
    "blank": (b" \n", "it is empty"),
    "truncated": (with_digest(PLAN)[:-5], "it is not JSON at line 1, column"),
    "truncated by a byte": (with_digest(PLAN)[:-1], "it ends without a line break"),
    "list": (b"[]", "it is a list, not an object"),
    "number": (b"7", "it is the number 7, not an object"),
    "null": (b"null", "it is null, not an object"),
    "nested": (DEEP, "it is nested too deeply"),
    "NaN": (b'{"format": NaN}', "it contains NaN"),
    "overflow": (b'{"format": 1e999}', "it contains 1e999"),
    "integer": (b'{"format": ' + b"9" * 5000 + b"}", "an integer of too many digits"),
    "twice": (b'{"format": 1, "format": 1}', "it has a duplicate key"),
    "encoding": (b'{"format": "\xff"}', "it is not UTF-8 text at byte 12"),
    "no digest": (b'{"format": 1}\n', "it has no sha256"),
    "changed": (with_digest(PLAN).replace(b"0.5", b"0.6"), "it does not match its sha256"),
    "format": (with_digest(PLAN, "1"), "a format that is not an integer"),
    "truth": (with_digest(PLAN, True), "a format that is not an integer"),
    "changed format": (
        with_digest(PLAN).replace(b'"format": 1', b'"format": 2'),
        "it does not match its sha256",
    ),
    "missing": (
        with_digest({k: v for k, v in PLAN.items() if k != "route"}),
        "it has no key 'route'",
    ),
    "text": (with_digest(PLAN | dict(chunk="0")), "it has a string as chunk"),
    "wide": (
        with_digest(PLAN | dict(chunk=2**63)),
        "it has the number 9223372036854775808 as chunk",
    ),
    "bool": (with_digest(PLAN | dict(chunk=False)), "it has a boolean as chunk"),
    "member": (with_digest(PLAN | dict(members=["a", None])), r"it has null as members\[1\]"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_error_names_file_fault_and_remedy(case, tmp_path):
    raw, words = DAMAGED[case]
    path = tmp_path / "plan.json"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=words) as e:
        documents.read(path)
    assert str(e.value).startswith(f"{path} is damaged: ") and "\n" not in str(e.value)
    assert str(e.value).endswith(documents.FILES["plan.json"].remedy)
    assert documents.peek(path) is None


@pytest.mark.parametrize(
    "number, words", [(2, "use the newer version"), (0, "use the earlier version")]
)
def test_other_formats_are_refused(number, words, tmp_path):
    path = tmp_path / "plan.json"
    path.write_bytes(with_digest(PLAN, number))
    with pytest.raises(
        UserError,
        match=f"has format {number}, and this version of aigc_jax reads format 1: {words}",
    ):
        documents.read(path)
    path.write_text(json.dumps(PLAN) + "\n")
    with pytest.raises(UserError, match="earlier version.*, or restart in another.*--restart"):
        documents.read(path)


def test_non_regular_files_are_refused_without_blocking(tmp_path):
    os.mkfifo(tmp_path / "plan.json")
    (tmp_path / "rung.json").mkdir()
    reader = threading.Thread(target=documents.peek, args=(tmp_path / "plan.json",), daemon=True)
    reader.start()
    reader.join(10)
    assert not reader.is_alive()
    for name in ("plan.json", "rung.json"):
        with pytest.raises(UserError, match=f"{name} is not a regular file"):
            documents.read(tmp_path / name)


ROW = b'{"step": 4, "split": "train", "loss": 0.5, "kl": null}\n'


def test_torn_last_row_is_dropped(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROW + ROW[:20])
    assert documents.read_lines(path) == [dict(step=4, split="train", loss=0.5, kl=None)]
    assert documents.read_lines(tmp_path / "timings.jsonl") == []


@pytest.mark.parametrize(
    "line, words",
    [
        (b"", "line 2 is empty"),
        (b"[4]", "line 2 is a list"),
        (b"nan", "line 2 is not JSON"),
        (b'{"step": 4}', "line 2 has no key 'split'"),
        (ROW.replace(b"4", b'"4"')[:-1], "line 2 has a string as step"),
        (ROW.replace(b"0.5", b"Infinity")[:-1], "line 2 contains Infinity"),
        (ROW.replace(b"0.5", b"[0.5]")[:-1], "line 2 has a list as loss"),
        (b"[" * 100_000, "line 2 is nested too deeply"),
    ],
)
def test_invalid_row_is_named_by_line(line, words, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROW + line + b"\n" + ROW)
    with pytest.raises(
        UserError, match=f"rows.jsonl is damaged: {words}.*; restore it from a copy"
    ):
        documents.read_lines(path)
    assert len(documents.read_lines(path, skip_invalid=True)) == 2


def test_invalid_document_is_not_written(tmp_path):
    for wrong in (PLAN | dict(chunk="0"), PLAN | dict(chunk=float("nan")), {}):
        with pytest.raises(UserError, match="plan.json cannot be written"):
            documents.write(tmp_path / "plan.json", wrong)
    assert not list(tmp_path.iterdir())


def test_shapes_support_optional_keys_unions_and_wildcards():
    shape = {"a": int, "b?": (str, None), ...: [float]}
    for good in ({"a": 1}, {"a": 1, "b": None}, {"a": 1, "b": "x", "c": [1, 2.5]}):
        document_shapes.check_json_shape(good, shape, "it")
    for bad in ({}, {"a": 1.5}, {"a": 1, "b": 2}, {"a": 1, "c": 1}, {"a": 1, "c": ["1"]}, []):
        with pytest.raises(document_shapes.DamageError):
            document_shapes.check_json_shape(bad, shape, "it")
    with pytest.raises(document_shapes.DamageError, match="unknown key 'z'"):
        document_shapes.check_json_shape({"a": 1, "z": 2}, {"a": int}, "it")
