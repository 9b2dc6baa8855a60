"""One GPU, ours against PyTorch in turns: GPT-2 of 124 million parameters in bfloat16,
a convolutional GAN, 64 small VAEs.

    pip install -r requirements-cuda.txt -r requirements-bench.txt -e .
    python benchmarks/gpu.py [--out=gpu.md] [--case=gpt2]
    python benchmarks/gpu.py --small           tiny networks on any device, to test the
                                               script

gpt2    configs/gpt2_124m.py, 16 windows of 1,024 tokens, the networks in bfloat16,
        nothing computed again; PyTorch by torch.compile, autocast to bfloat16,
        scaled_dot_product_attention (flash attention), fused AdamW. Tokens a second,
        and the share of the GPU's peak that 6 N + 12 L T d operations a token are
        (Kaplan et al. 2020; PaLM, appendix B)
dcgan   gan_step.py's two convolutional networks, batch 128; PyTorch eagerly in both
        memory layouts, and by torch.compile. TF32 on both sides
vaes    64 of configs/vae_digits.py (64-200-10, batch 100) by the route that `auto`
        takes; PyTorch one after another, eagerly and by torch.compile with CUDA graphs
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import gan_step
import lm_step
import turns

HERE = Path(__file__).resolve().parent
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # both sides are on the GPU at once

SMALL = bool(os.environ.get("AIGC_SMALL"))
GPT2 = {"data.name": "text", "data.path": "noise", "model.remat": False, "precision": "bfloat16"}
if SMALL:
    GPT2 |= {
        "model.layers": 2,
        "model.width": 64,
        "model.heads": 2,
        "model.kv_heads": 2,
        "model.context": 64,
        "data.length": 64,
        "batch_size": 2,
    }
    lm_step.SIZES["gpt2_124m"] = 500
TRIALS = 64


def torch_on_gpu():
    """PyTorch with the GPU as its default device, TF32 allowed, as JAX has it."""
    import torch

    if not SMALL:
        torch.set_default_device("cuda")
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    return torch


def waited(steps):
    """`steps`, which returns when PyTorch has finished its queued work."""
    import torch

    def run(n):
        steps(n)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def gpt2_pytorch(case):
    torch = torch_on_gpu()
    kind = "cpu" if SMALL else "cuda"
    prepare = (lambda net: net) if SMALL else torch.compile
    return waited(
        lm_step.pytorch("gpt2_124m", GPT2, prepare, lambda: torch.autocast(kind, torch.bfloat16))
    )


def dcgan_pytorch(layout, compiled=False):
    def side(case):
        torch = torch_on_gpu()
        prepare = torch.compile if compiled and not SMALL else (lambda net: net)
        return waited(gan_step.pytorch("dcgan", layout, prepare))

    return side


def vaes_ours(case):
    import jax
    from trials import group_of

    from aigc_jax.sweeps.route import choose_route

    configs, dataset = group_of("vae_digits", TRIALS, steps=100_000)
    programs, plan = choose_route(configs, dataset, "auto")
    print(
        f"route {plan['route']}, {plan['chunk'] or TRIALS} at once: {plan['seconds_a_step']}",
        file=sys.stderr,
    )
    state = [programs.init(configs)]

    def steps(n):
        state[0], metrics = programs.train(state[0], 0, n)
        jax.block_until_ready((state[0], metrics))

    return steps


def vaes_pytorch(compiled):
    def side(case):
        torch = torch_on_gpu()
        from torch import nn
        from vae_step import pytorch_step

        grey = torch.rand(1437, 64)
        encoder = nn.Sequential(nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 20))
        decoder = nn.Sequential(nn.Linear(10, 200), nn.ReLU(), nn.Linear(200, 64))
        optimizer = torch.optim.Adam(
            [*encoder.parameters(), *decoder.parameters()], lr=1e-3, fused=True
        )
        if compiled and not SMALL:
            encoder, decoder = (
                torch.compile(net, mode="reduce-overhead") for net in (encoder, decoder)
            )

        # The trials one after another: as much work as one trial's TRIALS times.
        def steps(n):
            for _ in range(TRIALS * n):
                pytorch_step(
                    encoder,
                    decoder,
                    optimizer,
                    torch.bernoulli(grey[torch.randint(len(grey), (100,))]),
                )

        return waited(steps)

    return side


OURS = dict(
    gpt2=lambda case: lm_step.ours("gpt2_124m", more=GPT2), dcgan=gan_step.ours, vaes=vaes_ours
)
SIDES = {
    "ours": lambda case: OURS[case](case),
    "pytorch_compiled": lambda case: dict(
        gpt2=gpt2_pytorch, dcgan=dcgan_pytorch("contiguous_format", True), vaes=vaes_pytorch(True)
    )[case](case),
    "pytorch_eager": lambda case: dict(
        dcgan=dcgan_pytorch("contiguous_format"), vaes=vaes_pytorch(False)
    )[case](case),
    "pytorch_channels_last": lambda case: dcgan_pytorch("channels_last")(case),
}
CASES = {
    "gpt2": ("GPT-2 124 M, bfloat16, 16 x 1,024 tokens", ("ours", "pytorch_compiled")),
    "dcgan": (
        "DCGAN 28x28, batch 128",
        ("ours", "pytorch_eager", "pytorch_channels_last", "pytorch_compiled"),
    ),
    "vaes": (
        f"{TRIALS} VAEs 64-200-10, a step of all",
        ("ours", "pytorch_eager", "pytorch_compiled"),
    ),
}


def gpu() -> str:
    """The GPU's name; '' without one."""
    try:
        found = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=False,
        )
        return (
            found.stdout.strip().splitlines()[0]
            if found.returncode == 0 and found.stdout.strip()
            else ""
        )
    except OSError:
        return ""


def speed(milliseconds: float, name: str) -> str:
    """Of GPT-2: tokens a second, and of what the GPU can do."""
    from aigc_jax.training import costs

    config = lm_step.config_of("gpt2_124m", GPT2)
    model, tokens = config.model, config.batch_size * config.data.length
    weights = 12 * model.layers * model.width**2 + lm_step.SIZES["gpt2_124m"] * model.width
    operations = (6 * weights + 12 * model.layers * config.data.length * model.width) * tokens
    rate, peak = 1000 / milliseconds, costs.peak_flops(name, "bfloat16")
    return f"{tokens * rate:,.0f} tokens/s" + (
        f", {operations * rate / peak:.0%} of {peak / 1e12:.0f} TFLOP/s" if peak else ""
    )


def main():
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--case", choices=CASES)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=3.0, help="of each stretch")
    arguments.add_argument("--out", help="a file for the table")
    arguments.add_argument(
        "--small", action="store_true", help="tiny networks, with or without a GPU"
    )
    arguments.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = arguments.parse_args()
    if args.side:
        return turns.worker(SIDES[args.side](args.case), args.seconds)
    name = gpu()
    if args.small:
        os.environ["AIGC_SMALL"] = "1"  # the sides' processes read it
    elif not name:
        sys.exit("error: nvidia-smi names no GPU here; --small tries the script out without one")
    from importlib.metadata import version

    lines = [
        f"{name or 'no GPU'}, jax {version('jax')}, torch {version('torch')}; milliseconds "
        "a step, median (least - most)"
        + (". TINY NETWORKS: these are no measurements." if args.small else ""),
        "",
        "| | ours | PyTorch's fastest | its way | PyTorch / ours | ours | PyTorch |",
        "|---" * 7 + "|",
    ]
    for case in [args.case] if args.case else CASES:
        what, sides = CASES[case]
        times = turns.compare(__file__, case, sides, args.rounds, args.seconds)
        median = {side: statistics.median(t) for side, t in times.items()}
        best = min(sides[1:], key=median.get)
        shown = lambda side, times=times, median=median: (
            f"{median[side]:.2f} ({min(times[side]):.2f} - {max(times[side]):.2f})"
        )
        more = [
            speed(median[side], name) if case == "gpt2" and not args.small else ""
            for side in ("ours", best)
        ]
        lines.append(
            f"| {what} | {shown('ours')} | {shown(best)} | "
            f"{best.removeprefix('pytorch_').replace('_', ' ')} | "
            f"{median[best] / median['ours']:.2f} | {' | '.join(more)} |"
        )
        print(lines[-1], json.dumps(times), sep="\n", flush=True)
    table = "\n".join(lines) + "\n"
    print("\n" + table)
    if args.out:
        Path(args.out).write_text(table)


if __name__ == "__main__":
    main()
