"""One case on one GPU: our step beside PyTorch's, eager and compiled, or 64 trials as
one program beside one after another. `make gpu` runs all of them
(benchmarks/gpu_parts.py) and writes their page.

    pip install -r requirements-cuda.txt -r requirements-bench.txt -e .
    python benchmarks/gpu.py --case=gpt2
    python benchmarks/gpu.py --case=gpt2 --small   tiny networks on any device, to test
                                                   the script: these are no measurements

gpt2            configs/gpt2_124m.py, 16 windows of 1,024 tokens, the networks in
                bfloat16, nothing computed again; PyTorch by autocast to bfloat16 and
                scaled_dot_product_attention (flash attention). Tokens a second, and the
                share of the GPU's peak that 6 N + 12 L T d operations a token are
                (Kaplan et al. 2020; PaLM, appendix B)
trials_NAME     64 trials by the route that `auto` takes, beside one trial's program,
                called 64 times
others          the cases of benchmarks/bench.py, in float32 with TF32 on both sides

PyTorch runs eagerly, convolutions in both memory layouts, by torch.compile ("compiled")
and by torch.compile with CUDA graphs ("graphs"), with fused optimizers. The faster of
the last two counts as compiled PyTorch. The sides take turns, each in a process of its
own. Prints a line of JSON; a side that fails is named in it, and without ours or the
compiled side the exit status is 1.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import gan_step
import gpt2
import lm_step
import turns
import vae_step

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # both sides are on the GPU at once

SMALL = "--small" in sys.argv
TRIALS = 3 if SMALL else 64
GPT2 = {"data.name": "text", "data.path": "noise", "model.remat": False, "precision": "bfloat16"}
# Seconds since the start after which only ours and the compiled side still start, and
# after which a side that is not ready is given up: a part ends after 540.
STARTING, WAITING = 240, 400
STARTED = time.monotonic()

# Goals: compiled PyTorch's time over ours, and the share of the peak.
FASTER, PEAK = 1.2, 0.5


def small_config(case):
    """Overrides of a text model that make it tiny."""
    if not SMALL:
        return {}
    small = {"batch_size": 2, "model.layers": 1}
    if case == "gpt2":
        small |= {"model.width": 64, "model.heads": 2, "model.kv_heads": 2}
        small |= {"model.context": 64, "data.length": 64}
    return small


if SMALL:
    # Two images or windows a step are enough to test the script.
    gan_step.CASES = {
        name: (what, config, more | {"batch_size": 2}, sides)
        for name, (what, config, more, sides) in gan_step.CASES.items()
    }
    vae_step.MORE["batch_size"] = 2
    lm_step.SIZES = dict.fromkeys(lm_step.SIZES, 500)
    gpt2.NETWORK = dict(width=64, heads=2, layers=1, context=64, vocabulary=500)
    gpt2.NEW = 8


# -- PyTorch's sides


def make_on_gpu(make_steps, case):
    """The function of n steps that `make_steps` makes with the GPU as PyTorch's default
    device, TF32 allowed as in JAX; it returns when the queued work is finished.
    """
    import torch

    if not SMALL:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
        torch.set_default_device("cuda")
    steps = make_steps(case)
    torch.set_default_device(None)  # a default costs time in every call of PyTorch

    def run(n):
        steps(n)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def prepare_for(way):
    """(function) -> the function as PyTorch runs it in this way."""
    import torch

    if way not in ("compiled", "graphs"):
        return lambda function: function
    if SMALL:  # traced, and not compiled, which would take minutes
        return lambda function: torch.compile(function, backend="aot_eager")
    mode = "reduce-overhead" if way == "graphs" else "default"
    return lambda function: torch.compile(function, mode=mode)


def layout_of(way):
    return "channels_last" if way == "channels_last" else "contiguous_format"


def torch_images(script):
    return lambda case, way: script.pytorch(case, layout_of(way), prepare_for(way))


def torch_text(case, way):
    return lm_step.pytorch(case, small_config(case), prepare_for(way))


def torch_gpt2(case, way):
    import torch

    kind = "cpu" if SMALL else "cuda"
    around = lambda: torch.autocast(kind, torch.bfloat16)
    return lm_step.pytorch("gpt2_124m", GPT2 | small_config("gpt2"), prepare_for(way), around)


def torch_generation(case, way):
    """Transformers compiles the forward pass where the cache is static."""
    static = dict(cache_implementation="static") if way == "compiled" and not SMALL else {}
    return gpt2.transformers(case, **static)


def torch_trials(case, way):
    """64 of configs/vae_digits.py (64-200-10, batch 100), one step of each."""
    import torch
    from torch import nn

    grey = torch.rand(1437, 64)
    encoder = nn.Sequential(nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 20))
    decoder = nn.Sequential(nn.Linear(10, 200), nn.ReLU(), nn.Linear(200, 64))
    params = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(params, lr=1e-3, fused=True)

    @prepare_for(way)
    def loss_of():
        rows = torch.randint(len(grey), (100,), device=grey.device)
        noise = torch.randn(100, 10, device=grey.device)
        return vae_step.negative_elbo(encoder, decoder, torch.bernoulli(grey[rows]), noise)

    def steps(n):
        for _ in range(TRIALS * n):
            loss = loss_of()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return steps


# -- our sides


def trials_of(case):
    """(configs, data set) of the trials of a case."""
    from trials import group_of

    from aigc_jax.training import config as configs

    if case != "trials_dcgan":
        return group_of(TRIAL_CONFIGS[case], TRIALS, steps=100_000)
    config, dataset = gan_step.task("dcgan", steps=100_000)
    return [configs.override(config, {"seed": i}) for i in range(TRIALS)], dataset


def ours_together(case):
    """All trials as one program, by the route that `auto` takes."""
    import jax

    from aigc_jax.sweeps.route import choose_route

    configs, dataset = trials_of(case)
    programs, plan = choose_route(configs, dataset, "auto")
    state = [programs.init(configs)]

    def steps(n):
        state[0], metrics = programs.train(state[0], 0, n)
        jax.block_until_ready((state[0], metrics))

    steps.note = f"route {plan['route']}, {plan['chunk'] or TRIALS} at once"
    return steps


def ours_sequential(case):
    """As many steps of one trial as all trials together do, in as many calls."""
    import jax

    from aigc_jax.training.programs import Programs

    configs, dataset = trials_of(case)
    programs = Programs(configs[0], dataset, 1, route="map")
    state = [programs.init(configs[:1])]

    def steps(n):
        for _ in range(TRIALS):
            state[0], metrics = programs.train(state[0], 0, n)
        jax.block_until_ready((state[0], metrics))

    return steps


def ours_text(case):
    name, more = ("gpt2_124m", GPT2) if case == "gpt2" else (case, {})
    return lm_step.ours(name, more=more | small_config(case))


# -- cases

# Name -> the config of its trials, which have the data set of the config
TRIAL_CONFIGS = {
    "trials_vae": "vae_digits",
    "trials_gan": "gan_digits",
    "trials_dcgan": "dcgan_mnist",
    "trials_dcgan_digits": "dcgan_digits",
}
WAYS = ("eager", "compiled", "graphs")
CONV = ("eager", "channels_last", "compiled", "graphs")


def make_cases():
    """{case: (what it is, {side: (case) -> steps}, goal of trials or 0)}."""

    def beside_pytorch(ours, theirs, ways=WAYS):
        side = lambda way: lambda case: theirs(case, way)
        return dict(ours=ours) | {f"pytorch_{way}": side(way) for way in ways}

    alone = dict(ours=ours_together, ours_sequential=ours_sequential)
    torch_vaes = beside_pytorch(ours_together, torch_trials, ("eager", "graphs"))
    cases = {
        "gpt2": (
            "GPT-2 124 M, bfloat16, 16 x 1,024 tokens",
            beside_pytorch(ours_text, torch_gpt2),
            0,
        ),
        "trials_vae": (f"{TRIALS} VAEs 64-200-10, a step of all", alone | torch_vaes, 20),
        "trials_gan": (f"{TRIALS} MLP GANs of digits, a step of all", alone, 20),
        "trials_dcgan": (f"{TRIALS} DCGANs 28x28, batch 128, a step of all", alone, 5),
        "trials_dcgan_digits": (f"{TRIALS} DCGANs of digits, a step of all", alone, 5),
    }
    for script in (gan_step, vae_step):
        for name, (what, *_, sides) in script.CASES.items():
            ways = CONV if "pytorch_channels_last" in sides else WAYS
            cases[name] = what, beside_pytorch(script.ours, torch_images(script), ways), 0
    for name, (what, _) in lm_step.CASES.items():
        cases[name] = what, beside_pytorch(ours_text, torch_text), 0
    for name, (what, _) in gpt2.CASES.items():
        ways = ("eager", "compiled")
        cases[name] = what, beside_pytorch(gpt2.ours, torch_generation, ways), 0
    return cases


CASES = make_cases()


def steps_of(case, side):
    """The side's function of n steps, made on the device that it is timed on."""
    make_steps = CASES[case][1][side]
    return make_on_gpu(make_steps, case) if side.startswith("pytorch") else make_steps(case)


# -- timing


def is_required(side):
    return side in ("ours", "ours_sequential", "pytorch_compiled")


def compare(case, rounds, seconds):
    """The sides of a case, timed in turns. Sides that need not be timed are left out
    when the others have taken long to start.
    """
    sides, flags = [], ["--small"] * SMALL
    for name in sorted(CASES[case][1], key=lambda name: not is_required(name)):
        if is_required(name) or time.monotonic() - STARTED < STARTING:
            print(f"starting {name}", file=sys.stderr, flush=True)
            wait = max(1, WAITING - (time.monotonic() - STARTED))
            sides.append(turns.Side(__file__, case, name, seconds, flags, wait))
    turns.take_turns(sides, rounds)
    return sides


def find_goals(case, median):
    """[(what, its value, the goal)]."""
    found = []
    compiled = [median[s] for s in ("pytorch_compiled", "pytorch_graphs") if s in median]
    if "ours" in median and compiled:
        found.append(("compiled PyTorch / ours", min(compiled) / median["ours"], FASTER))
    if "ours" in median and "ours_sequential" in median:
        ratio = median["ours_sequential"] / median["ours"]
        found.append(("one after another / one program", ratio, CASES[case][2]))
    return found


def gpu() -> str:
    """The GPU's name; '' without one."""
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    lines = found.stdout.strip().splitlines()
    return lines[0] if found.returncode == 0 and lines else ""


def gpt2_speed(milliseconds):
    """Tokens a second, and their share of what the GPU can do; 0 where unknown."""
    from aigc_jax.training import costs

    config = lm_step.config_of("gpt2_124m", GPT2 | small_config("gpt2"))
    model, tokens = config.model, config.batch_size * config.data.length
    weights = 12 * model.layers * model.width**2 + lm_step.SIZES["gpt2_124m"] * model.width
    operations = (6 * weights + 12 * model.layers * config.data.length * model.width) * tokens
    rate, peak = 1000 / milliseconds, costs.peak_flops(gpu(), "bfloat16")
    return round(tokens * rate), operations * rate / peak if peak else 0.0


def measure(case, rounds, seconds):
    """The row of a case."""
    sides = compare(case, rounds, seconds)
    times = {side.name: side.times for side in sides if not side.failure}
    median = {side: statistics.median(t) for side, t in times.items()}
    row = dict(
        case=case,
        what=CASES[case][0],
        milliseconds=times,
        notes={side.name: side.note for side in sides if side.note},
        failed={side.name: side.failure for side in sides if side.failure},
    )
    goals = find_goals(case, median)
    if case == "gpt2":
        speeds = {side: gpt2_speed(milliseconds) for side, milliseconds in median.items()}
        row["tokens_per_s"] = {side: tokens for side, (tokens, _) in speeds.items()}
        row["share_of_peak"] = {side: round(share, 4) for side, (_, share) in speeds.items()}
        if "ours" in speeds:
            goals.append(("share of the peak (0: the peak is unknown)", speeds["ours"][1], PEAK))
    row["goals"] = [(what, round(value, 3), goal) for what, value, goal in goals]
    return row


def main():
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--case", choices=CASES, required=True)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=3.0, help="of each stretch")
    arguments.add_argument(
        "--small", action="store_true", help="tiny networks, with or without a GPU"
    )
    arguments.add_argument("--side", help=argparse.SUPPRESS)
    args = arguments.parse_args()
    if args.side:
        return turns.worker(steps_of(args.case, args.side), args.seconds)
    if args.small:
        args.rounds, args.seconds = 1, 0.1
    elif not gpu():
        sys.exit("error: nvidia-smi names no GPU here; --small tries the script out without one")
    row = measure(args.case, args.rounds, args.seconds)
    if args.small:
        row["small"] = "TINY NETWORKS: these are no measurements"
    print(json.dumps(row), flush=True)
    sys.exit(any(is_required(side) for side in row["failed"]))


if __name__ == "__main__":
    main()
