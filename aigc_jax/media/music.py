"""Music in ABC notation (standard 2.1): a parser for tunes of one voice, a check of
their bars, and MIDI files (written by mido).

Times are fractions of a whole note. Chord symbols, grace notes, decorations and words
are ignored; repeats are played once.
"""

import io
import re
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from aigc_jax.utils.documents import write_atomically
from aigc_jax.utils.errors import UserError, require
from aigc_jax.utils.terminal import print_warning

SEMITONES = dict(C=0, D=2, E=4, F=5, G=7, A=9, B=11)
FIFTHS = "FCGDAEB"  # the order in which key signatures add sharps
SHARPS = {
    tonic: n
    for n, tonic in enumerate(
        ("Cb", "Gb", "Db", "Ab", "Eb", "Bb", "F", "C", "G", "D", "A", "E", "B", "F#", "C#"), -7
    )
}
# Mode -> the number of its sharps minus that of the major key with the same tonic.
MODES = dict(maj=0, ion=0, m=-3, min=-3, aeo=-3, mix=-1, dor=-2, phr=-4, lyd=1, loc=-5)
ACCIDENTALS = {"": None, "^": 1, "^^": 2, "_": -1, "__": -2, "=": 0}
LONGEST = 64  # whole notes: the maximum length of a note

# The tokens of a line of music, matched in this order.
TOKEN = re.compile(
    r"""(?P<skip>"[^"]*"|\{[^}]*\}|![^!]*!|\\|[~.$`)HLMOPSTuv-]|\s+|\((?!\d))"""
    r"|(?P<inline>\[[A-Za-z]:[^\]]*\])"
    r"|(?P<bar>\[\||:*\|[\]|:]*|::+)(?P<ending>\s*\[?\d[\d,.-]*)?"
    r"|(?P<second>\[\d[\d,.-]*)"
    r"|\((?P<tuplet>\d)(?::\d*)*"
    r"|(?P<broken>[<>]+)"
    r"|(?P<chord>\[(?:[_^=]*[A-Ga-g][,']*\d*/*\d*[-\s]*)+\])(?P<chord_length>\d*/*\d*)"
    r"|(?P<accidental>[_^=]*)(?P<letter>[A-Ga-g])(?P<octave>[,']*)(?P<length>\d*/*\d*)"
    r"|(?P<rest>[zxZ])(?P<rest_length>\d*/*\d*)"
)
NOTE = re.compile(
    r"(?P<accidental>[_^=]*)(?P<letter>[A-Ga-g])(?P<octave>[,']*)(?P<length>\d*/*\d*)"
)
TUPLETS = {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}  # number of notes -> number whose time they take


class Note(NamedTuple):
    """A note of a tune, with start and length in whole notes."""

    start: Fraction
    length: Fraction
    pitch: int  # MIDI number: 60 is middle C


class Bar(NamedTuple):
    """A bar of a tune, with its length and that of its meter in whole notes."""

    length: Fraction
    meter_length: Fraction  # the length that the meter requires
    # Whether the bar may be shorter: at the edge of a tune, part, repeat or ending.
    edge: bool


class Tune(NamedTuple):
    """A tune of one voice; `parse_tune` parses it from ABC notation."""

    title: str
    tempo: Fraction  # whole notes per minute
    notes: list[Note]
    bars: list[Bar]


def parse_note_length(text: str) -> Fraction:  # a factor, 1 for ""
    """Return the factor of a note's length: 1 for '', 3 for '3', 1/2 for '/', 1/4 for
    '//', 3/2 for '3/2'. Raise a UserError for other text.
    """
    found = re.fullmatch(r"(\d{0,4})(/{0,6})(\d{0,4})", text)
    if not found:
        raise UserError(f"{text[:20]!r} is not the length of a note")
    above, slashes, below = found.groups()
    value = Fraction(int(above or 1))
    if slashes:
        require(below == "" or int(below), f"a note's length {text!r} divides by 0")
        value /= int(below) if below else 2 ** len(slashes)
    require(
        0 < value <= LONGEST, f"a note's length {text!r} must be positive and at most {LONGEST}"
    )
    return value


def parse_meter(text: str) -> Fraction:  # in whole notes
    """Return the length of a bar in whole notes: 1 for C and C|, 3/4 for 6/8. Raise a
    UserError for other text.
    """
    found = re.fullmatch(r"(\d{1,2})/(\d{1,2})", {"C": "4/4", "C|": "2/2"}.get(text, text))
    if not (found and int(found[1]) and int(found[2])):
        raise UserError(f"the meter {text!r} is neither C, C| nor a fraction such as 6/8")
    return Fraction(int(found[1]), int(found[2]))


def parse_key(text: str) -> dict[str, int]:  # {letter: 1 for sharp, -1 for flat}
    """Return {letter: 1 for sharp, -1 for flat} of a key such as G, Am, Bb or Edor.
    Raise a UserError unless the text begins with a tonic of SHARPS; an unknown mode
    counts as major.
    """
    found = re.match(r"([A-G][#b]?)\s*([A-Za-z]{0,3})", text)
    if not found or found[1] not in SHARPS:
        raise UserError(f"the key {text!r} does not begin with a letter from A to G")
    mode = found[2].lower()
    sharps = SHARPS[found[1]] + (0 if mode == "" else MODES.get(mode, 0))
    altered = (
        FIFTHS[:sharps] if sharps > 0 else FIFTHS[len(FIFTHS) + sharps :] if sharps < 0 else ""
    )
    return dict.fromkeys(altered, 1 if sharps > 0 else -1)


class Reader:
    """A parser that reads a tune once and appends to `bars` and `notes`."""

    def __init__(self):
        self.title, self.tempo, self.notes, self.bars = "", None, [], []
        self.meter, self.unit, self.key = Fraction(1), None, {}
        # `edge`: whether the current bar begins at the edge of a part.
        self.now, self.begun, self.edge = Fraction(0), Fraction(0), True
        self.accidentals, self.tuplet, self.broken, self.last = (
            {},
            (0, Fraction(1)),
            None,
            (0, Fraction(0)),
        )

    def apply_field(self, name: str, value: str) -> None:
        """Apply a field such as M:6/8, whose `name` is M and `value` 6/8; fields that
        do not affect notes are ignored. Raise a UserError for an invalid value.
        """
        if name == "T":
            self.title = self.title or value
        elif name == "M" and value != "none":
            self.meter = parse_meter(value)
        elif name == "L":
            self.unit = parse_meter(value)
        elif name == "K":
            self.key = parse_key(value)
        elif name == "Q":
            found = re.search(r"(?:(\d{1,2})/(\d{1,2})\s*=\s*)?(\d{1,4})\s*$", value)
            if found and int(found[3]) and (not found[2] or int(found[2])):
                self.tempo = (
                    Fraction(int(found[1]), int(found[2])) if found[1] else Fraction(1, 4)
                ) * int(found[3])
        elif name == "P":
            self.close_bar(is_edge=True)

    def close_bar(self, is_edge: bool) -> None:
        """End the current bar, unless it has no notes or rests; `is_edge`: whether the
        bar line is the edge of a part.
        """
        if self.now > self.begun:
            self.bars.append(Bar(self.now - self.begun, self.meter, self.edge or is_edge))
            self.edge = is_edge
        elif is_edge:
            self.edge, self.bars[-1:] = True, [bar._replace(edge=True) for bar in self.bars[-1:]]
        self.begun, self.accidentals = self.now, {}

    def append_notes(self, length_text: str, pitches: list[int]) -> None:
        """Append a note, a chord, or for no pitches a rest, whose length is
        `length_text`.
        """
        length = parse_note_length(length_text) * (
            self.unit or (Fraction(1, 16) if self.meter < Fraction(3, 4) else Fraction(1, 8))
        )
        left, factor = self.tuplet
        if left:
            length, self.tuplet = length * factor, (left - 1, factor)
        if self.broken:
            length, self.broken = length * self.broken, None
        self.last = (len(self.notes), length)
        self.notes += [Note(self.now, length, pitch) for pitch in pitches]
        self.now += length

    def parse_pitch(self, match: re.Match[str]) -> int:  # MIDI number
        """Return the MIDI pitch of a match of NOTE, or of a note of TOKEN, from its
        accidental, earlier accidentals in the bar, and the key. Raise a UserError for a
        pitch outside the range of MIDI.
        """
        letter, marks = match["letter"].upper(), match["accidental"]
        require(marks in ACCIDENTALS, f"{marks!r} is not an accidental")
        octave = 12 * (
            match["octave"].count("'") - match["octave"].count(",") + match["letter"].islower()
        )
        place = (letter, octave)
        if marks:
            self.accidentals[place] = ACCIDENTALS[marks]
        value = (
            60 + SEMITONES[letter] + octave + self.accidentals.get(place, self.key.get(letter, 0))
        )
        require(0 <= value < 128, f"{match[0]!r} is outside the pitches of MIDI")
        return value

    def apply_broken_rhythm(self, marks: str) -> None:
        """Apply a broken rhythm: `a > b` multiplies the lengths of a and b by 3/2 and
        1/2, `a >> b` by 7/4 and 1/4, `a >>> b` by 15/8 and 1/8; `<` reverses the
        factors.
        """
        require(self.notes and len(marks) <= 3, f"{marks!r} follows no note")
        short = Fraction(1, 2 ** len(marks))
        first, second = (2 - short, short) if marks[0] == ">" else (short, 2 - short)
        at, length = self.last
        self.notes[at:] = [note._replace(length=length * first) for note in self.notes[at:]]
        self.now += length * (first - 1)
        self.broken = second

    def parse_line(self, text: str) -> None:
        """Parse a line of notes, bars and inline fields. Raise a UserError at the first
        token that is not ABC notation.
        """
        at = 0
        while at < len(text):
            found = TOKEN.match(text, at)
            if not found:
                raise UserError(f"{text[at : at + 10]!r} is not ABC notation")
            at = found.end()
            if found["inline"]:
                self.apply_field(found["inline"][1], found["inline"][3:-1].strip())
            elif found["bar"]:
                self.close_bar(is_edge=found["bar"] != "|" or bool(found["ending"]))
            elif found["second"]:
                self.close_bar(is_edge=True)
            elif found["tuplet"]:
                count = int(found["tuplet"])
                require(count > 1, f"{found[0]!r} is not a tuplet")
                self.tuplet = (count, Fraction(TUPLETS.get(count, 2), count))
            elif found["broken"]:
                self.apply_broken_rhythm(found["broken"])
            elif found["chord"]:
                inside = list(NOTE.finditer(found["chord"]))
                self.append_notes(
                    found["chord_length"] or inside[0]["length"],
                    [self.parse_pitch(note) for note in inside],
                )
            elif found["letter"]:
                self.append_notes(found["length"], [self.parse_pitch(found)])
            elif found["rest"]:
                self.append_notes(found["rest_length"], [])


def parse_tune(text: str) -> Tune:
    """Parse a text in ABC notation, which begins with its fields. Raise a UserError for
    a line that is not ABC notation, and for a tune without a key or notes.
    """
    reader, music = Reader(), False
    for number, line in enumerate(text.split("\n"), 1):
        line = line.split("%")[0].strip()
        try:
            if re.match(r"[A-Za-z+]:", line) and not line.startswith("|"):
                reader.apply_field(line[0], line[2:].strip())
                music = music or line[0] == "K"
            elif line and music:
                reader.parse_line(line)
        except UserError as e:
            raise UserError(f"line {number} of the tune: {e}") from None
    require(music, "the tune has no key (K:)")
    reader.close_bar(is_edge=True)
    require(reader.notes, "the tune has no notes")
    return Tune(reader.title, reader.tempo or Fraction(30), reader.notes, reader.bars)


def has_valid_bars(text: str) -> bool:  # 4 or more, of full length
    """Return whether the text is a tune of at least four bars, each as long as its
    meter requires; bars at the edge of a part may be shorter.
    """
    try:
        bars = parse_tune(text).bars
    except UserError:
        return False
    return len(bars) >= 4 and all(
        bar.length == bar.meter_length or (bar.edge and bar.length < bar.meter_length)
        for bar in bars
    )


TICKS = 480  # per quarter note
VELOCITY = 80  # loudness of each note, 1 to 127


def encode_midi(tune: Tune, origin: dict[str, str]) -> bytes:
    """Return a Standard MIDI File of format 0: one track, played by a piano, which
    begins with the origin as text events.

    Args:
      tune: the tune.
      origin: {name: text}, such as `provenance_marks.describe_origin`.
    """
    import mido

    microseconds = max(1, min(round(60e6 / (4 * tune.tempo)), 2**24 - 1))  # per quarter note
    track = mido.MidiTrack(
        mido.MetaMessage("text", text=f"{name}: {text}") for name, text in origin.items()
    )
    track.append(mido.MetaMessage("set_tempo", tempo=microseconds))
    ends = [(note.start + note.length, 0, note.pitch) for note in tune.notes]
    starts = [(note.start, VELOCITY, note.pitch) for note in tune.notes]
    now = 0
    for time, velocity, pitch in sorted(ends + starts):  # at equal times, ends before starts
        ticks = round(time * 4 * TICKS)
        kind = "note_on" if velocity else "note_off"
        track.append(mido.Message(kind, note=pitch, velocity=velocity, time=ticks - now))
        now = ticks
    out = io.BytesIO()
    mido.MidiFile(type=0, ticks_per_beat=TICKS, charset="utf-8", tracks=[track]).save(file=out)
    return out.getvalue()


def write_midi_files(
    stem: Path, texts: list[str], origin: dict[str, str]
) -> list[Path]:  # STEM_1.mid, ...; skips texts that are no tune
    """Write STEM_1.mid and so on, one file for each text that is a tune, numbered by
    its position among the texts; return the paths. A warning counts the others.

    Args:
      stem: path of the files without _1.mid.
      texts: texts; those that are no tune are skipped.
      origin: as in `encode_midi`.
    """
    written, problems = [], []
    for i, text in enumerate(texts, 1):
        try:
            tune = parse_tune(text)
        except UserError as e:
            problems.append(f"text {i}: {e}")
            continue
        path = stem.with_name(f"{stem.name}_{i}.mid")
        write_atomically(path, encode_midi(tune, origin))
        written.append(path)
    if problems:
        print_warning(
            f"{len(problems):,} of {len(texts):,} texts are no tune and have no .mid; {problems[0]}"
        )
    return written
