#!/usr/bin/env python3
"""The checks that need a GPU, in parts of at most nine minutes, and their page in docs.
`make gpu` runs the parts that have not been finished on this GPU for these sources of
the package; after an interruption, run it again.

    pip install -r requirements-cuda.txt -r requirements-bench.txt -e .
    python benchmarks/gpu_parts.py                 the parts that are not finished
    python benchmarks/gpu_parts.py --part=gpt2 --part=device --again
    python benchmarks/gpu_parts.py --page          the page from the rows, nothing run
    python benchmarks/gpu_parts.py --list          the parts, and which are finished
    python benchmarks/gpu_parts.py --small --out=DIR
                                                   tiny networks on the CPU, to test the
                                                   parts: these are no measurements

Each part is a process of its own, which is killed with all its children at its limit,
and adds a line of JSON to gpu.jsonl beside this script: finished, failed or cut off,
with what it measured, and the last lines of its output unless it finished. With --out,
both the rows and the page are in that directory. A new check is an entry in PARTS.
"""

import argparse
import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import gpu

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ROWS, PAGE = HERE / "gpu.jsonl", ROOT / "docs" / "gpu.md"
LIMIT = 540  # seconds
TINY = "Tiny networks on the CPU: these are no measurements"  # in the place of a GPU's name
LAST_LINES = 30  # of the output of a part that did not finish

INTRO = """\
# On a GPU

What was run on a GPU. `make gpu` runs every part that is not finished for the GPU at hand and the
sources of the package, and writes this page from the rows; `python benchmarks/gpu_parts.py --page`
writes it without running anything.

The sides of a benchmark run in processes of their own and take turns; medians are compared.
*Compiled* PyTorch is the faster of `torch.compile` alone (compiled) and with CUDA graphs (graphs),
float32 products are computed as TF32 on both sides, and optimizers are fused.
"""


class Part(NamedTuple):
    """What it answers; its command, from the root, after the Python interpreter; what
    is added to the command with --small; its limit in seconds; environment variables.
    """

    name: str
    answers: str
    command: tuple[str, ...]
    small: tuple[str, ...] = ("--small",)
    limit: int = LIMIT
    variables: dict[str, str] = {}


# float32 products as exact as the tests expect, results that do not vary, no search for
# the fastest kernels, which takes longer than the tests.
EXACT = dict(
    JAX_DEFAULT_MATMUL_PRECISION="highest",
    XLA_FLAGS="--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0",
)
# Tests that divide arrays among several devices cannot run on one.
ONE_DEVICE = "not shard and not devices and not mesh and not pmap"


def tests(name, answers, *files, processes=4, more=()):
    """A part that runs tests; with --small it only collects them."""
    command = ("-m", "pytest", *files, "-q", "-k", ONE_DEVICE, *more)
    command += ("-n", str(processes), "--dist", "worksteal") if processes > 1 else ()
    return Part(name, answers, command, small=("--collect-only", "-n", "0"), variables=EXACT)


def bench(case):
    return Part(case, gpu.CASES[case][0], ("benchmarks/gpu.py", f"--case={case}"))


METHODS = "tests/methods/test_"
TRAINING = "tests/training/test_"
# In this order: what the others need, then the goals.
PARTS = [
    Part("device", "JAX and PyTorch find the GPU; versions", ("benchmarks/gpu_device.py",)),
    tests(
        "attention",
        "cuDNN's attention in bfloat16 is that of float32 within rounding, with its gradients",
        "tests/models/test_attention_gpu.py",
        processes=1,
    ),
    *map(bench, gpu.CASES),
    tests(
        "losses",
        "the losses of the benchmarks are PyTorch's",
        "tests/integration/test_benchmarks.py",
        more=("--slow",),
    ),
    tests("tests_models", "the tests of networks pass", "tests/models"),
    tests(
        "tests_gan",
        "the tests of GANs pass",
        *(f"{METHODS}{name}.py" for name in ("gan", "gan_losses", "gan_networks")),
    ),
    tests(
        "tests_vae",
        "the tests of VAEs pass",
        *(f"{METHODS}{name}.py" for name in ("vae", "vqvae", "likelihoods", "classifier")),
    ),
    tests(
        "tests_text",
        "the tests of decoding and generation pass",
        f"{METHODS}decoding.py",
        "tests/inference/test_generation.py",
    ),
    tests(
        "tests_methods",
        "the tests of all methods together pass",
        *(f"{METHODS}{name}.py" for name in ("methods", "norms", "optimizers", "mathematics")),
    ),
    tests(
        "tests_training",
        "the tests of training, resuming and precisions pass",
        *(f"{TRAINING}{name}.py" for name in ("train", "loop", "precision", "checkpoints")),
        *(f"{TRAINING}{name}.py" for name in ("divergence", "init_from", "gpt2_weights")),
        "tests/inference/test_run.py",
    ),
]


# -- rows


def read_lines(path):
    """The lines of a file; a damaged last one, which a kill leaves, is dropped."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    if lines and not (lines[-1].endswith(b"\n") and is_json(lines[-1])):
        lines.pop()
    return lines


def is_json(line):
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def read_rows(path):
    lines = read_lines(path)
    for number, line in enumerate(lines, 1):
        if not is_json(line):
            sys.exit(f"error: {path}:{number} is damaged; remove the line")
    return [json.loads(line) for line in lines]


def append_row(path, row):
    """Add a line after the last complete one, in one write."""
    size = sum(map(len, read_lines(path)))
    with open(path, "ab", buffering=0) as file:
        file.truncate(size)
        file.write(json.dumps(row).encode() + b"\n")
        os.fsync(file.fileno())


def version_of(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def describe(small):
    """What rows are valid for, the GPU and a digest of the package's sources; the
    commit of these, and versions.
    """
    digest = hashlib.sha256()
    for path in sorted((ROOT / "aigc_jax").rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    words = ["git", "-C", str(ROOT), "log", "-1", "--format=%h", "--", "aigc_jax"]
    changes = ["git", "-C", str(ROOT), "status", "--porcelain", "--", "aigc_jax"]
    try:
        commit, changed = (
            subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
            for command in (words, changes)
        )
    except OSError:  # no git
        commit = changed = ""
    return dict(
        gpu=TINY if small else gpu.gpu(),
        package=digest.hexdigest()[:12],
        commit=commit + ("+changes" if changed else ""),
        jax=version_of("jax"),
        torch=version_of("torch"),
    )


def is_finished(part, rows, about):
    """Whether a row says so, of the same command, GPU and sources."""
    wanted = dict(part=part.name, command=list(part.command), status="finished")
    wanted |= {key: about[key] for key in ("gpu", "package")}
    return any(wanted.items() <= row.items() for row in rows)


# -- running


def end_with_parent():
    """End this process by SIGKILL when its parent has ended (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def run_command(command, limit, variables):
    """(exit status, or None at the limit; seconds; output; errors) of a command. The
    process and its children are a group, which is killed at the end.
    """
    begun = time.monotonic()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            cwd=ROOT,
            env=os.environ | variables,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return status, time.monotonic() - begun, *texts


def find_measured(output):
    """The rows in the output of a part: lines of JSON, and the summary of pytest."""
    found = []
    for line in output.splitlines():
        if line.startswith("{"):
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        summary = re.fullmatch(r"=* ?(\d+ (?:passed|failed|skipped|error).*?) in [\d.]+s.*", line)
        if summary:
            found.append(dict(tests=summary[1]))
    return found


def run_part(part, about, small):
    """The row of a part."""
    variables = dict(
        PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        # Without the GPU, JAX would take the CPU.
        JAX_PLATFORMS="cpu" if small else "cuda,cpu",
        CUDA_VISIBLE_DEVICES=os.environ.get("CUDA_VISIBLE_DEVICES", "0"),
        XLA_PYTHON_CLIENT_PREALLOCATE="false",
    )
    command = [sys.executable, *part.command, *(part.small if small else ())]
    status, seconds, output, errors = run_command(command, part.limit, variables | part.variables)
    row = dict(part=part.name, command=list(part.command), **about)
    row |= dict(
        status={0: "finished", None: "cut off"}.get(status, "failed"),
        exit_status=status,
        seconds=round(seconds, 1),
        rows=find_measured(output),
    )
    if status != 0:
        text = [line for line in output.splitlines() if not line.startswith("{")]
        row["output"] = [*text[-LAST_LINES:], *errors.splitlines()[-LAST_LINES:]]
    return row


def run_parts(parts, path, about, small, again):
    """Run the parts without a finished row; return the number of those that failed."""
    rows = read_rows(path)
    left = [part for part in parts if again or not is_finished(part, rows, about)]
    print(f"{about['gpu']}: {len(parts) - len(left)} of {len(parts)} parts are finished")
    failed = 0
    for i, part in enumerate(left, 1):
        print(f"[{i}/{len(left)}] {part.name}: {part.answers}", end=" ... ", flush=True)
        row = run_part(part, about, small)
        append_row(path, row)
        print(f"{row['status']}, {row['seconds']:.0f} s", flush=True)
        for line in row.get("output", ()):
            print(f"    {line}")
        failed += row["status"] != "finished"
        if failed and part.name == "device":
            sys.exit("error: JAX does not run on the GPU, so that no other part was started")
    return failed


# -- the page


def table(head, rows):
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    clean = lambda cell: str(cell).replace("|", "/").replace("\n", " ")
    return [*lines, *(f"| {' | '.join(map(clean, row))} |" for row in rows), ""]


def format_goals(part, row):
    for what, value, goal in row["goals"] if "goals" in row and "small" not in row else ():
        reached = "reached" if value >= goal else "**missed**"
        yield part.name, what, f"{value:.2f}", f"{goal:g}", reached


def format_times(row):
    """The cells of a benchmark: what it is, ours, and the other sides."""
    times, failed = row["milliseconds"], row.get("failed", {})
    name = lambda side: side.removeprefix("pytorch_").removeprefix("ours_").replace("_", " ")
    cells = [f"{name(s)} {statistics.median(t):.4g}" for s, t in times.items() if s != "ours"]
    cells += [f"{name(side)} failed" for side in failed]
    own = times.get("ours")
    ours = f"{statistics.median(own):.4g} ({min(own):.4g} - {max(own):.4g})" if own else "failed"
    tokens = row.get("tokens_per_s", {}).get("ours")
    notes = [f"{tokens:,} tokens/s"] if tokens else []
    return row["what"], ours, ", ".join(cells), ", ".join([*notes, *row["notes"].values()])


def describe_row(row):
    """One line of a row that is no benchmark."""
    flat = {k: v for k, v in row.items() if not isinstance(v, (dict, list)) and v != ""}
    return ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in flat.items())


def make_section(name, rows):
    """The lines of one GPU, from its last row of each part."""
    last = {row["part"]: row for row in rows}
    found = [(part, last[part.name]) for part in PARTS if part.name in last]
    measured = [(part, r) for part, row in found for r in row["rows"]]
    goals = [cells for part, row in measured for cells in format_goals(part, row)]
    times = [format_times(row) for _, row in measured if "milliseconds" in row]
    outcomes = []
    for part, row in found:
        others = [describe_row(r) for r in row["rows"] if "milliseconds" not in r]
        outcome = "; ".join([row["status"], *others])
        outcomes.append((part.name, part.answers, outcome, f"{row['seconds']:.0f}", row["commit"]))
    missing = [part.name for part in PARTS if part.name not in last]
    used = sorted({f"jax {row['jax']}, torch {row['torch']}" for _, row in found})
    lines = [f"## {name}", "", f"{'; '.join(used)}.", ""]
    if goals:
        lines += table(("part", "quantity", "measured", "goal", ""), goals)
    if times:
        head = ("milliseconds of a step", "ours (least - most)", "others", "notes")
        lines += table(head, times)
    lines += table(("part", "what it answers", "outcome", "seconds", "commit"), outcomes)
    return [*lines, f"Not run: {', '.join(missing)}.", ""] if missing else lines


def make_page(rows):
    """The page of the last row of each part, GPU by GPU."""
    lines = [INTRO]
    for name in dict.fromkeys(row["gpu"] for row in rows):
        lines += make_section(name, [row for row in rows if row["gpu"] == name])
    return "\n".join(lines).rstrip() + "\n"


def write_page(path, rows):
    if not rows:
        sys.exit("error: there are no rows yet; run this where a GPU is")
    is_new = not path.exists()
    path.write_text(make_page(rows), encoding="utf-8")
    print(f"wrote {path}")
    if is_new and path == PAGE:
        print("the page is new: add it to the navigation in mkdocs.yml (Speed on a GPU: gpu.md)")


def parse_arguments():
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [part.name for part in PARTS]
    arguments.add_argument(
        "--part", action="append", choices=names, metavar="NAME", help="(default: every part)"
    )
    arguments.add_argument("--small", action="store_true", help="tiny networks on the CPU")
    arguments.add_argument("--again", action="store_true", help="finished parts too")
    arguments.add_argument("--page", action="store_true", help="only write the page")
    arguments.add_argument("--list", action="store_true", help="only list the parts")
    arguments.add_argument("--out", type=Path, help="the directory of the rows and the page")
    return arguments.parse_args()


def main():
    args = parse_arguments()
    if args.small and args.out is None:
        args.out = Path(tempfile.mkdtemp(prefix="gpu_small_"))
    rows, page = (args.out / "gpu.jsonl", args.out / "gpu.md") if args.out else (ROWS, PAGE)
    if args.page:
        return write_page(page, read_rows(rows))
    about = describe(args.small)
    parts = [part for part in PARTS if part.name in (args.part or part.name)]
    if args.list:
        for part in parts:
            mark = "finished" if is_finished(part, read_rows(rows), about) else ""
            print(f"{part.name:20} {mark:9} {part.answers}")
        return None
    if not about["gpu"]:
        sys.exit("error: nvidia-smi names no GPU; --small tries the parts out on the CPU")
    for number in (signal.SIGTERM, signal.SIGINT):  # the part's processes end too
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    rows.parent.mkdir(parents=True, exist_ok=True)
    with open(rows, "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"error: another process runs the parts of {rows}")
        failed = run_parts(parts, rows, about, args.small, args.again)
    write_page(page, read_rows(rows))
    return sys.exit(f"error: {failed} parts did not finish") if failed else None


if __name__ == "__main__":
    main()
