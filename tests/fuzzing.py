"""Random faults for tests/integration/test_fuzz.py: wrong values of config keys, and
damage to files.
"""

import itertools
import random
import signal
import string
from contextlib import contextmanager

# Replacements of a key's value, as written on the command line.
WRONG_VALUES = {
    "word": "abc",
    "empty": "",
    "negative": "-1",
    "zero": "0",
    "huge": "1e30",
    "digits": "9" * 400,
    "nan": "nan",
    "tuple": "(1, 'a')",
    "mapping": "{'a': 1}",
    "fraction": "0.5",
}
OTHER_TYPES = ("[]", "{}", "3", '"x"', "null", "[[1]]")


def flip(data: bytes, rng: random.Random) -> bytes:
    """Change one letter or digit of a text, or one bit of binary data."""
    if not data:
        return b"x"
    places = [i for i, byte in enumerate(data) if chr(byte) in string.digits + string.ascii_letters]
    if not places or b"\0" in data:
        i = rng.randrange(len(data))
        return data[:i] + bytes([data[i] ^ (1 << rng.randrange(8))]) + data[i + 1 :]
    i = rng.choice(places)
    kind = string.digits if chr(data[i]) in string.digits else string.ascii_letters
    other = rng.choice([c for c in kind if c != chr(data[i])])
    return data[:i] + other.encode() + data[i + 1 :]


def damage(path, kind: str, rng: random.Random):
    """Change a file in place; `deleted` removes it."""
    data = path.read_bytes()
    if kind == "deleted":
        path.unlink()
    else:
        new = {
            "flipped": lambda: flip(data, rng),
            "truncated": lambda: data[: rng.randrange(1, max(len(data), 2))],
            "emptied": lambda: b"",
            "other type": lambda: rng.choice(OTHER_TYPES).encode() + b"\n",
            "nested": lambda: b"[" * 100_000 + b"]" * 100_000 + b"\n",
        }[kind]()
        path.write_bytes(new)


DAMAGES = ("flipped", "truncated", "emptied", "other type", "nested", "deleted")


class HangError(BaseException):
    """A command did not return in time; not caught by `except Exception`."""


@contextmanager
def time_limit(cpu: float, wall: float):
    """Raise HangError in a block that exceeds its processor or wall-clock seconds."""

    def over(number, frame):
        raise HangError(f"no answer within {cpu} s of processor time, {wall} s in all")

    timers = {signal.ITIMER_PROF: cpu, signal.ITIMER_REAL: wall}
    before = {number: signal.signal(number, over) for number in (signal.SIGPROF, signal.SIGALRM)}
    try:
        for timer, seconds in timers.items():
            signal.setitimer(timer, seconds)
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def untimed():
    """Suspend the timers of `time_limit` within a block."""
    left = {
        timer: signal.setitimer(timer, 0)[0] for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL)
    }
    try:
        yield
    finally:
        for timer, seconds in left.items():
            signal.setitimer(timer, seconds)


def cross(left: list, right: list, count: int, rng: random.Random) -> list[tuple]:
    """`count` distinct pairs of the two lists, using each entry early."""
    left, right = rng.sample(left, len(left)), rng.sample(right, len(right))
    pairs = (
        (left[i], right[(i + turn) % len(right)])
        for turn in range(len(right))
        for i in range(len(left))
    )
    return list(itertools.islice(pairs, count))
