"""The GPU as JAX and PyTorch name it, versions, and the speed of large matrix products,
as a line of JSON.

    python benchmarks/gpu_device.py
    python benchmarks/gpu_device.py --small    on any device, with small matrices
"""

import argparse
import json
import subprocess
import sys
import time
from importlib.metadata import distributions

NAMED = ("jax", "flax", "optax", "torch", "transformers", "triton", "nvidia-cu", "nvidia-nccl")
TORCH = """
import json, torch
found = torch.cuda.is_available()
print(json.dumps([torch.version.cuda or "", torch.cuda.get_device_name() if found else ""]))
"""


def list_versions():
    """{distribution: version} of what decides speed."""
    found = {d.metadata["Name"].lower(): d.version for d in distributions()}
    return {name: found[name] for name in sorted(found) if name.startswith(NAMED)}


def query_torch():
    """[PyTorch's CUDA, the name of its GPU]; '' for what it lacks."""
    command = [sys.executable, "-c", TORCH]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else ["not installed", ""]


def query_driver():
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return (done.stdout.strip().splitlines() or [""])[0] if done.returncode == 0 else ""


def time_products(size, dtype):
    """Operations a second of the product of two square matrices, in tera."""
    import jax
    import jax.numpy as jnp

    def step(_, pair):
        return pair[0], pair[0] @ pair[1]

    pair = jnp.full((size, size), 1 / size, dtype), jnp.ones((size, size), dtype)
    repeated = jax.jit(lambda pair: jax.lax.fori_loop(0, 20, step, pair))
    jax.block_until_ready(repeated(pair))
    begun = time.perf_counter()
    jax.block_until_ready(repeated(pair))
    return 20 * 2 * size**3 / (time.perf_counter() - begun) / 1e12


def main():
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--small", action="store_true", help="on any device")
    args = arguments.parse_args()
    import jax

    from aigc_jax.training import costs

    device = jax.devices()[0]
    cuda, name = query_torch()
    row = dict(
        devices=len(jax.devices()),
        platform=device.platform,
        kind=device.device_kind,
        compute_capability=getattr(device, "compute_capability", ""),
        memory_bytes=(device.memory_stats() or {}).get("bytes_limit", 0),
        driver=query_driver(),
        torch_cuda=cuda,
        torch_device=name,
        versions=list_versions(),
    )
    for precision in ("bfloat16", "float32"):
        row[f"{precision}_tflops"] = round(time_products(256 if args.small else 8192, precision), 3)
        row[f"{precision}_peak_tflops"] = costs.peak_flops(device.device_kind, precision) / 1e12
    print(json.dumps(row))
    if not args.small and not name:
        print(f"warning: PyTorch ({cuda}) has no GPU", file=sys.stderr)
    if not args.small and device.platform != "gpu":
        sys.exit(f"error: JAX runs on {device.platform}: install requirements-cuda.txt")


if __name__ == "__main__":
    main()
