"""ABC notation against hand-computed lengths and pitches, MIDI against its bytes."""

import struct
from fractions import Fraction as F

import pytest

from aigc_jax.media.music import (
    encode_variable_length,
    has_valid_bars,
    parse_tune,
    write_midi_files,
)
from aigc_jax.utils.errors import UserError

pytestmark = pytest.mark.unit

HEAD = "X:1\nT:A tune\nM:4/4\nL:1/8\nK:C\n"


def lengths(music, head=HEAD):
    return [8 * note.length for note in parse_tune(head + music).notes]


def pitches(music, head=HEAD):
    return [note.pitch for note in parse_tune(head + music).notes]


@pytest.mark.parametrize(
    "music, eighths",
    [
        ("C C2 C/ C// C3/2 C/4", [1, 2, F(1, 2), F(1, 4), F(3, 2), F(1, 4)]),
        ("(3CDE F", [F(2, 3)] * 3 + [1]),
        ("(2CD E", [F(3, 2)] * 2 + [1]),
        ("C>D E<F", [F(3, 2), F(1, 2), F(1, 2), F(3, 2)]),
        ("C2>>D2", [F(7, 2), F(1, 2)]),
        ("[CEG]2 D", [2, 2, 2, 1]),
        ("[C2E2] D", [2, 2, 1]),
        ('"Am"C {cd}D ~E !trill!F .G', [1] * 5),
    ],
)
def test_note_lengths_follow_the_notation(music, eighths):
    assert lengths(music) == eighths


@pytest.mark.parametrize(
    "key, music, expected",
    [
        ("C", "C c C, c' B", [60, 72, 48, 84, 71]),
        ("G", "F f G", [66, 78, 67]),
        ("Bb", "B E A", [70, 63, 69]),
        ("Am", "F C G", [65, 60, 67]),  # no sharps
        ("Edor", "F C G", [66, 61, 67]),  # two sharps
        ("Dmix", "F C", [66, 60]),  # one sharp
        ("C", "^F F _B =B B | F B", [66, 66, 70, 71, 71, 65, 71]),  # valid until the bar line
        ("D", "=f F", [77, 66]),  # applies to one octave only
    ],
)
def test_pitches_follow_the_key_and_the_accidentals_of_the_bar(key, music, expected):
    assert pitches(music, HEAD.replace("K:C", f"K:{key}")) == expected


def test_notes_of_a_chord_begin_together_and_rests_take_time():
    notes = parse_tune(HEAD + "C2 z2 [CE]4").notes
    assert [(note.start, note.pitch) for note in notes] == [(0, 60), (F(1, 2), 60), (F(1, 2), 64)]


def test_default_unit_of_a_short_meter_is_a_sixteenth():
    assert parse_tune("X:1\nM:2/4\nK:C\nC").notes[0].length == F(1, 16)
    assert parse_tune("X:1\nM:6/8\nK:C\nC").notes[0].length == F(1, 8)


BAR = "CDEF GABc|"


@pytest.mark.parametrize(
    "music, adds_up",
    [
        (BAR * 4, True),
        (f"G|{BAR * 4}", True),  # a pickup bar
        (f"G2|{BAR * 3}CDEF GA:|{BAR * 4}", True),  # the bar before the repeat completes the pickup
        (f"{BAR}CDEF|{BAR * 3}", False),  # a short bar in the middle
        (f"{BAR * 4}{BAR[:-1]}c|", False),  # a long bar at the end
        (f"{BAR * 3}[M:3/4]CDEFGA|{BAR * 2}", False),
        (f"{BAR * 3}[M:3/4]CDEFGA|CDEFGA|", True),
        (BAR * 3, False),  # too few bars to decide
        ("not music at all 123", False),
    ],
)
def test_bars_add_up(music, adds_up):
    assert has_valid_bars(HEAD + music) is adds_up


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "no key"),
        (HEAD, "no notes"),
        (HEAD + "C5/0", "divides by 0"),
        (HEAD + "C" + "9" * 5000, "is not the length"),
        (HEAD + "C ;", "line 6 of the tune: ';' is not ABC notation"),
        (HEAD + "C" + "'" * 50, "is outside the pitches of MIDI"),
        (HEAD.replace("4/4", "4/x") + "C", "the meter '4/x'"),
        (HEAD.replace("K:C", "K:H") + "C", "the key 'H'"),
    ],
)
def test_invalid_tunes_are_refused(text, reason):
    with pytest.raises(UserError, match=reason):
        parse_tune(text)


def test_midi_is_one_track_of_timed_notes(tmp_path):
    """The bytes are parsed here: the header, the tempo, and each event as (ticks since
    the previous event, status, pitch).
    """
    (path,) = write_midi_files(tmp_path / "tune", [HEAD + "Q:1/4=90\nC2 [EG]2", "no tune"])
    data = path.read_bytes()
    assert data[:14] == b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480) and data[14:18] == b"MTrk"
    assert struct.unpack(">I", data[18:22])[0] == len(data) - 22
    assert data[22:29] == b"\0\xff\x51\x03" + round(60e6 / 90).to_bytes(3, "big")
    assert data[29:].endswith(b"\0\xff\x2f\0")
    body, events = data[29:-4], []
    while body:
        ticks = 0
        while True:
            ticks, more, body = ticks * 128 + (body[0] & 127), body[0] & 128, body[1:]
            if not more:
                break
        events.append((ticks, body[0], body[1]))
        body = body[3:]
    assert events == [
        (0, 0x90, 60),
        (480, 0x80, 60),
        (0, 0x90, 64),
        (0, 0x90, 67),
        (480, 0x80, 64),
        (0, 0x80, 67),
    ]
    assert encode_variable_length(0x4000) == b"\x81\x80\x00"
