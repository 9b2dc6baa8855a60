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
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SETTINGS = ("alone", "group", "devices")
DEVICES = 8
# Keys of the state that were renamed since 3be723d.
RENAMED = {"book": "codebook"}
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


def run_case(case: dict) -> dict[str, dict[str, str]]:
    """Train one case in the checkout of the working directory; {trial: digests}."""
    try:
        from aigc_jax.cli.main import main
    except ImportError:  # a checkout from before the command line was a package
        from launch import main
    flags = [as_flag(*item) for item in case["overrides"].items()]
    words = [f"--config=configs/{case['config']}.py", f"--workdir={case['workdir']}"]
    if case["setting"] == "group":
        code = main(["sweep", *words, "--seeds=2", "--route=vmap", *flags])
        paths = sorted((Path(case["workdir"]) / "trials").iterdir())
    else:
        code = main(["train", *words, *flags])
        paths = [Path(case["workdir"])]
    assert code == 0, f"exit code {code}"
    # The hash at the end of a trial's name differs where a key was renamed.
    return {p.name.rpartition("-")[0] if len(paths) > 1 else "": digest_of(p) for p in paths}


def in_checkout(checkout: Path, case: dict, cache: str) -> dict:
    """The digests of a case, by a process in a checkout."""
    around = dict(os.environ, JAX_COMPILATION_CACHE_DIR=cache, PYTHONPATH=str(checkout))
    around["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    if case["setting"] == "devices":
        around["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"
    with tempfile.TemporaryDirectory() as scratch:
        case = case | dict(workdir=str(Path(scratch) / "run"))
        words = [sys.executable, str(Path(__file__).resolve()), "--case", json.dumps(case)]
        done = subprocess.run(
            words, cwd=checkout, env=around, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise SystemExit(f"{checkout}: {case['name']}, {case['setting']}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def cases_of(checkout: Path, only: list[str]) -> list[dict]:
    """Every method of the tests' table in every setting."""
    spec = importlib.util.spec_from_file_location(
        f"table of {checkout}", checkout / "tests" / "tiny_configs.py"
    )
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    cases = []
    for name, (config, overrides) in table.METHODS.items():
        for setting in SETTINGS if not only or name in only else ():
            more = OVER_DEVICES if setting == "devices" else {}
            values = table.SMALL_RUN | overrides | more
            cases.append(dict(name=name, config=config, overrides=values, setting=setting))
    return cases


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--only", default="", metavar="NAME,...", help="methods (default: all)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a table in Markdown")
    if sys.argv[1:2] == ["--case"]:
        print(json.dumps(run_case(json.loads(sys.argv[2]))))
        return 0
    args = parser.parse_args()
    lines, differ = ["| method | setting | state | rows | samples |", "|---|---|---|---|---|"], 0
    with tempfile.TemporaryDirectory() as cache:
        only = [name for name in args.only.split(",") if name]
        roots = [args.before.resolve(), args.after.resolve()]
        for pair in zip(*(cases_of(root, only) for root in roots), strict=True):
            case = pair[1]
            before, after = (in_checkout(*side, cache) for side in zip(roots, pair, strict=True))
            for trial in before | after:
                one, other = before.get(trial, {}), after.get(trial, {})
                equal = {k: one.get(k) == other.get(k) for k in ("state", "rows", "samples")}
                differ += not all(equal.values())
                cells = [
                    f"{one.get(k, 'none')[:12]}{'' if equal[k] else ' DIFFERS'}" for k in equal
                ]
                setting = case["setting"] + (f" {trial}" if trial else "")
                lines.append(f"| {case['name']} | {setting} | {' | '.join(cells)} |")
                print(lines[-1], flush=True)
    print(f"{differ} of {len(lines) - 2} differ")
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
