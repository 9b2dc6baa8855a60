"""Time of one GAN training step, ours against the same networks in PyTorch, alternating on the same machine.

    pip install -r requirements.txt -r requirements-bench.txt
    python benchmarks/gan_step.py [--rounds=7] [--seconds=4]

Both sides draw shuffled MNIST-sized batches from memory, update the discriminator, then the generator on the same fakes,
by Adam, and average the generator's weights. PyTorch runs eagerly with its fused Adam, its fastest on CPUs here. Each side
runs in a process of its own, so that neither's thread pool disturbs the other; they take turns, and medians are compared.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

CASES = {"gan_mlp_mnist": "MLP GAN 100-256-784, batch 128"}


def data():
    """Pictures of MNIST's size and type; what they show does not matter to the clock."""
    import numpy as np

    random = np.random.RandomState(0)
    return random.randint(0, 256, (60_000, 28, 28, 1)).astype(np.uint8)


def ours(case):
    """A function that does n steps in one call, as training does, and the size of such a call."""
    import jax
    import numpy as np

    from aigc_jax import config as configs
    from aigc_jax.data.dataset import images
    from aigc_jax.programs import Programs

    x = data()
    splits = dict(train=dict(x=x[:55_000]), valid=dict(x=x[55_000:57_500]), test=dict(x=x[57_500:]))
    config = configs.resolve(configs.load(HERE.parent / "configs" / f"{case}.py"), 55_000, 128)
    programs = Programs(config, images(splits, 255, {}), 1)
    state = [programs.init([config])]

    def steps(n):
        state[0], metrics = programs.train(state[0], programs.arrays, np.int32(n))
        jax.block_until_ready((state[0], metrics))

    return steps


def pytorch(case):
    """The same game written plainly in PyTorch."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    from aigc_jax import config as configs

    config = configs.load(HERE.parent / "configs" / f"{case}.py")
    x = torch.from_numpy(data()[:55_000])
    batch, z, hp = config.batch_size, config.z, config.hp
    g, d = NETWORKS[case](nn)
    average = [p.detach().clone() for p in g.parameters()]
    adam = dict(betas=(hp.beta1, hp.beta2), eps=1e-8, fused=True)
    optimizer_g = torch.optim.Adam(g.parameters(), lr=hp.lr_g, **adam)
    optimizer_d = torch.optim.Adam(d.parameters(), lr=hp.lr_d, **adam)
    order = [torch.randperm(len(x)), 0]

    def steps(n):
        for _ in range(n):
            if order[1] + batch > len(x):
                order[:] = torch.randperm(len(x)), 0
            rows = order[0][order[1] : order[1] + batch]
            order[1] += batch
            real = (x[rows].float() / 127.5 - 1).permute(0, 3, 1, 2).contiguous()
            fake = g(torch.randn(batch, z))
            loss = F.softplus(-d(real)).mean() + F.softplus(d(fake.detach())).mean()
            optimizer_d.zero_grad()
            loss.backward()
            optimizer_d.step()
            for p in d.parameters():
                p.requires_grad_(False)
            loss = F.softplus(-d(fake)).mean()
            optimizer_g.zero_grad()
            loss.backward()
            optimizer_g.step()
            for p in d.parameters():
                p.requires_grad_(True)
            with torch.no_grad():
                torch._foreach_lerp_(average, list(g.parameters()), 1 - hp.ema)

    return steps


def mlp(nn):
    g = nn.Sequential(nn.Linear(100, 256), nn.ReLU(), nn.Linear(256, 784), nn.Tanh(), nn.Unflatten(1, (1, 28, 28)))
    d = nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1))
    return g, d


NETWORKS = {"gan_mlp_mnist": mlp}


def worker(side, case, seconds):
    """Answer each line of input with the milliseconds a step of one stretch of steps."""
    steps = dict(ours=ours, pytorch=pytorch)[side](case)
    steps(10)
    begun = time.perf_counter()
    steps(20)
    n = max(1, min(1000, int(seconds / ((time.perf_counter() - begun) / 20))))
    steps(n)
    print("ready", flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        steps(n)
        print(1000 * (time.perf_counter() - begun) / n, flush=True)


def compare(case, rounds, seconds):
    """Medians of the two sides' milliseconds a step, in turns."""
    command = [sys.executable, __file__, "--case", case, "--seconds", str(seconds), "--side"]
    workers, times = {}, dict(ours=[], pytorch=[])
    for side in times:
        workers[side] = subprocess.Popen([*command, side], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert workers[side].stdout.readline() == "ready\n", f"{side} did not start"
    for _ in range(rounds):
        for side, process in workers.items():
            process.stdin.write("go\n")
            process.stdin.flush()
            times[side].append(float(process.stdout.readline()))
    for process in workers.values():
        process.stdin.close()
        process.wait()
    return times


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--case", choices=CASES)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--seconds", type=float, default=4.0, help="of each stretch")
    arguments.add_argument("--side", choices=("ours", "pytorch"), help=argparse.SUPPRESS)
    args = arguments.parse_args()
    if args.side:
        return worker(args.side, args.case, args.seconds)
    from importlib.metadata import version

    print(f"{os.cpu_count()} cores, jax {version('jax')}, torch {version('torch')}; milliseconds a step, median (least - most)")
    for case in [args.case] if args.case else CASES:
        times = compare(case, args.rounds, args.seconds)
        median = {side: statistics.median(t) for side, t in times.items()}
        text = {s: f"{median[s]:.2f} ({min(t):.2f} - {max(t):.2f})" for s, t in times.items()}
        print(f"{CASES[case]}: ours {text['ours']}, PyTorch {text['pytorch']}, PyTorch / ours {median['pytorch'] / median['ours']:.2f}")
        print(json.dumps(dict(case=case, **times)))


if __name__ == "__main__":
    main()
