"""Does a change of the code change what it computes? Every method of the tests' table
in two checkouts: digests of states, rows and samples.

    git worktree add /tmp/before COMMIT
    python benchmarks/compare_checkouts.py /tmp/before . [--only=gan,vae] [--out=FILE]

Each small config of tests/tiny_configs.py is trained by the command line of each
checkout, with that checkout's keys: alone on one device, as a group of two trials of a
sweep, and over eight simulated devices (four parts of the batch, two of the
parameters). Renamed leaves of the state are paired by RENAMED. Both use one compilation
cache, so that a program that did not change is compiled once. The
exit code is 1 where anything differs.
"""

import argparse
import ast
import hashlib
import importlib.util
import itertools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SETTINGS = ("alone", "group", "devices")
DEVICES = 8
# Keys of the state that were renamed since 3be723d.
RENAMED = {"book": "codebook", "clip": "grad_clip"}
OVER_DEVICES = {"run.mesh.data": DEVICES // 2, "run.mesh.model": 2, "run.fsdp": True}


def as_flag(key, value) -> str:
    return f"--config.{key}={value if isinstance(value, str) else repr(value)}"


def digest_of(path) -> dict[str, str]:
    """SHA-256 of a run's last state, rows and samples, by the imported checkout."""
    import jax
    import numpy as np

    import aigc_jax

    def current(path) -> str:
        return re.sub(
            r"\w+", lambda word: RENAMED.get(word[0], word[0]), jax.tree_util.keystr(path)
        )

    run, state = aigc_jax.load(path), hashlib.sha256()
    leaves = [(current(name), x) for name, x in jax.tree_util.tree_leaves_with_path(run.state)]
    for name, leaf in sorted(leaves, key=lambda item: item[0]):
        raw = (
            jax.random.key_data(leaf)
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            else leaf
        )
        value = np.asarray(raw)
        state.update(f"{name} {value.dtype} {value.shape}".encode())
        state.update(value.tobytes())
    samples = np.ascontiguousarray(run.draw(8, run.default_sampler))
    rows = (Path(path) / "rows.jsonl").read_bytes()
    return {
        "state": state.hexdigest(),
        "rows": hashlib.sha256(rows).hexdigest(),
        "samples": hashlib.sha256(samples.tobytes()).hexdigest(),
    }


def load_table() -> Any:
    """tests/tiny_configs.py of the working directory."""
    path = Path.cwd() / "tests" / "tiny_configs.py"
    spec = importlib.util.spec_from_file_location("table", path)
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    return table


def run_case(name: str, setting: str) -> dict[str, dict[str, str]]:
    """Train a method of the table in the checkout of the working directory.

    Returns:
      {trial: digests}; "" names the trial of a single run.
    """
    try:
        from aigc_jax.cli.main import main
    except ImportError:  # a checkout from before the command line was a package
        from launch import main
    table = load_table()  # its data files exist until this process ends
    config, overrides = table.METHODS[name]
    overrides = table.SMALL_RUN | overrides | (OVER_DEVICES if setting == "devices" else {})
    flags = [as_flag(*item) for item in overrides.items()]
    with tempfile.TemporaryDirectory() as scratch:
        workdir = Path(scratch) / "run"
        words = [f"--config=configs/{config}.py", f"--workdir={workdir}"]
        if setting == "group":
            code = main(["sweep", *words, "--seeds=2", "--route=vmap", *flags])
            paths = sorted((workdir / "trials").iterdir())
        else:
            code = main(["train", *words, *flags])
            paths = [workdir]
        assert code == 0, f"exit code {code}"
        # The hash at the end of a trial's name differs where a key was renamed.
        return {p.name.rpartition("-")[0] if len(paths) > 1 else "": digest_of(p) for p in paths}


def in_checkout(checkout: Path, words: list[str], **around: str) -> Any:
    """The last line, a literal, that this script prints in a process of a checkout."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), *words],
        cwd=checkout,
        env=os.environ | dict(PYTHONPATH=str(checkout)) | around,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{checkout}: {' '.join(words)}:\n{done.stderr[-3000:]}")
    return ast.literal_eval(done.stdout.splitlines()[-1])


def digests_of(checkout: Path, name: str, setting: str, cache: str) -> dict:
    """The digests of a case in a checkout."""
    around = dict(JAX_COMPILATION_CACHE_DIR=cache, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
    if setting == "devices":
        around["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"
    return in_checkout(checkout, ["--case", name, setting], **around)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--only", default="", metavar="NAME,...", help="methods (default: all)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a table in Markdown")
    if sys.argv[1:2] == ["--case"]:
        print(run_case(*sys.argv[2:]))
        return 0
    if sys.argv[1:2] == ["--names"]:
        print(list(load_table().METHODS))
        return 0
    args = parser.parse_args()
    lines, differ = ["| method | setting | state | rows | samples |", "|---|---|---|---|---|"], 0
    with tempfile.TemporaryDirectory() as cache:
        roots = [args.before.resolve(), args.after.resolve()]
        only = [name for name in args.only.split(",") if name]
        names = only or in_checkout(roots[1], ["--names"])
        for name, setting in itertools.product(names, SETTINGS):
            before, after = (digests_of(root, name, setting, cache) for root in roots)
            for trial in before | after:
                one, other = before.get(trial, {}), after.get(trial, {})
                equal = {k: one.get(k) == other.get(k) for k in ("state", "rows", "samples")}
                differ += not all(equal.values())
                cells = [
                    f"{one.get(k, 'none')[:12]}{'' if equal[k] else ' DIFFERS'}" for k in equal
                ]
                where = setting + (f" {trial}" if trial else "")
                lines.append(f"| {name} | {where} | {' | '.join(cells)} |")
                print(lines[-1], flush=True)
    print(f"{differ} of {len(lines) - 2} differ")
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
