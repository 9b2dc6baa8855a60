"""Sides that take turns on one machine: each in a process of its own, so that no thread
pool disturbs another's.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time


def worker(steps, seconds):
    """Answer each line of input with the milliseconds a step of one stretch of steps;
    steps(n) does n of them. What its attribute `note` says, if it has one, is reported.
    """
    steps(2)
    begun, n = time.perf_counter(), 0
    while time.perf_counter() - begun < 1 or n < 2:
        steps(2)
        n += 2
    n = max(1, min(1000, round(seconds * n / (time.perf_counter() - begun))))
    steps(n)
    print(f"ready {getattr(steps, 'note', '')}".rstrip(), flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        steps(n)
        print(1000 * (time.perf_counter() - begun) / n, flush=True)


class Side:
    """The process of a side, and why it failed; '' while it has not.

    Args:
      script: a benchmark that calls `worker` for --case, --side and --seconds.
      case: its name.
      name: of the side.
      seconds: of each stretch.
      flags: more words of its command.
      wait: seconds after which a side that is not ready has failed; None: none.
    """

    def __init__(self, script, case, name, seconds, flags=(), wait=None):
        self.name, self.note, self.failure, self.times = name, "", "", []
        command = [sys.executable, script, f"--case={case}", f"--side={name}"]
        self.errors = tempfile.TemporaryFile("w+", errors="replace")
        self.process = subprocess.Popen(
            [*command, f"--seconds={seconds}", *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        timer = threading.Timer(wait or 0, self.process.kill)
        if wait is not None:
            timer.start()
        first = self.process.stdout.readline()
        timer.cancel()
        self.note = first.removeprefix("ready").strip()
        if not first.startswith("ready"):
            self.fail()

    def measure(self):
        """Time one stretch of steps, unless the side has failed."""
        if self.failure:
            return
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
            self.times.append(float(self.process.stdout.readline()))
        except (OSError, ValueError):  # the process ended
            self.fail()

    def fail(self):
        self.process.kill()
        code = self.process.wait()
        self.errors.seek(0)
        text = self.errors.read().strip()
        self.failure = f"{(text.splitlines() or [''])[-1][:300]} (exit status {code})".strip()
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)

    def close(self):
        if not self.failure:
            self.process.stdin.close()
            self.process.wait()


def take_turns(sides, rounds):
    """Time one stretch of each side in each round, and end their processes."""
    for _ in range(rounds):
        for side in sides:
            side.measure()
    for side in sides:
        side.close()


def compare(script, case, names, rounds, seconds):
    """{side: its milliseconds a step, one stretch a round}. Exit if a side fails."""
    sides = [Side(script, case, name, seconds) for name in names]
    take_turns(sides, rounds)
    for side in sides:
        if side.failure:
            raise SystemExit(f"{case}: {side.name} failed: {side.failure}")
    return {side.name: side.times for side in sides}


def check_losses(script, case):
    """The losses of both sides with the same parameters: {loss: (ours, theirs)}. Exit
    unless they agree within 1e-4.
    """
    command = [sys.executable, script, "--case", case, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    losses = json.loads(done.stdout.splitlines()[-1])
    for name, (own, theirs) in losses.items():
        if not abs(own - theirs) <= 1e-4 * max(1, abs(theirs)):
            raise SystemExit(f"{case}: the loss {name} is {own} here and {theirs} in PyTorch")
    return losses


def machine():
    """What a time depends on."""
    from importlib.metadata import version

    from aigc_jax.core.compilation_cache import describe_processor

    lines = describe_processor().splitlines()
    model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), lines[0])
    cores = os.cpu_count()
    return dict(machine=f"{cores} cores, {model}", jax=version("jax"), torch=version("torch"))


def main(script, doc, cases, sides, check):
    """The command line of a benchmark. cases: name -> (what it is, its sides); sides:
    name -> (case) -> steps(n); check: (case) -> {loss: (ours, PyTorch's)}.
    """
    arguments = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--case", choices=cases)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--seconds", type=float, default=4.0, help="of each stretch")
    arguments.add_argument("--out", help="a file to which a line of JSON a case is added")
    arguments.add_argument("--side", choices=sides, help=argparse.SUPPRESS)
    arguments.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    args = arguments.parse_args()
    if args.side:
        return worker(sides[args.side](args.case), args.seconds)
    if args.check:
        return print(json.dumps(check(args.case)))
    about = machine()
    print(
        f"{about['machine']}, jax {about['jax']}, torch {about['torch']}; "
        "milliseconds a step, median (least - most)"
    )
    for case in [args.case] if args.case else cases:
        what, names = cases[case]
        losses = check_losses(script, case)
        times = compare(script, case, names, args.rounds, args.seconds)
        median = {side: statistics.median(t) for side, t in times.items()}
        print(what)
        for side, t in times.items():
            print(f"  {side:22} {median[side]:9.2f} ({min(t):.2f} - {max(t):.2f})")
        best = min(m for side, m in median.items() if side.startswith("pytorch"))
        print(f"  PyTorch's fastest / ours {best / median['ours']:.2f}")
        if "ours_plain_jit" in median:
            print(
                f"  in the loop / under plain jit {median['ours'] / median['ours_plain_jit']:.2f}"
            )
        if "ours_four_trials" in median:
            print(f"  four trials / one {median['ours_four_trials'] / median['ours']:.2f}")
        if "limit" in median:
            print(f"  the limit / ours {median['limit'] / median['ours']:.2f}")
        print(json.dumps(dict(case=case, **times)))
        if args.out:
            row = dict(case=case, what=what, **about, losses=losses, milliseconds=times)
            with open(args.out, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def processes(sides, rounds, show):
    """Complete processes that take turns. sides: name -> command, which gets a new
    --workdir; show(stdout) -> what to print of each. Prints the seconds, and how many
    times as fast the first side is as the second.
    """
    times = {side: [] for side in sides}
    for _ in range(rounds):
        for side, command in sides.items():
            with tempfile.TemporaryDirectory() as workdir:
                begun = time.perf_counter()
                done = subprocess.run(
                    [*command, f"--workdir={workdir}/run"],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                times[side].append(time.perf_counter() - begun)
            assert done.returncode == 0, done.stderr
            print(f"{side}: {times[side][-1]:.1f} s; {show(done.stdout)}", flush=True)
    median = {side: statistics.median(t) for side, t in times.items()}
    print(f"{os.cpu_count()} cores; seconds of a complete process, median (least - most)")
    for side, t in times.items():
        print(f"  {side:8} {median[side]:6.1f} ({min(t):.1f} - {max(t):.1f})")
    first, second = sides
    print(f"  {second} / {first} {median[second] / median[first]:.2f}")
