"""The complete training of configs/gpt_shakespeare_cpu.py from start to finish, ours
against PyTorch's, taking turns on the same machine.

    pip install -r requirements.txt -r requirements-bench.txt -e .
    AIGC_DATA_DIR=DIRECTORY python benchmarks/lm_run.py [--rounds=3]

Both are complete processes: start, data, compilation if necessary, 2,000 steps with
warm-up and cosine, a pass over the full validation split in windows of 64 each time
that ours makes one. Ours also saves checkpoints, samples and curves. PyTorch's network
is that of `lm_step.py`, run eagerly with its fused AdamW.
"""

import argparse
import math
import sys
from pathlib import Path

import turns

HERE = Path(__file__).resolve().parent
CONFIG = HERE.parent / "configs" / "gpt_shakespeare_cpu.py"
# Steps after which ours goes over the validation split, the test row included.
PASSES = (0, 500, 1000, 1500, 2000, 2000)


def pytorch():
    """The same training written plainly; prints the loss of the last pass."""
    import torch
    from lm_step import transformer
    from torch.nn import functional as F

    from aigc_jax import data
    from aigc_jax.training import config_files

    config = config_files.load(CONFIG)
    dataset, hp, length = data.load(config.data), config.hp, config.data.length
    text = torch.from_numpy(dataset.arrays["tokens"].astype("int64"))
    first, windows = dataset.splits["valid"]
    train, valid = (
        text[: dataset.splits["train"][1] * length],
        text[first * length : (first + windows) * length + 1],
    )
    torch.manual_seed(0)
    net = transformer(config.model, dataset.spec.vocabulary)
    groups = [
        dict(
            params=[p for p in net.parameters() if (p.dim() > 1) == m],
            weight_decay=hp.weight_decay * m,
        )
        for m in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=hp.lr, betas=(hp.beta1, hp.beta2), fused=True)
    steps, warmup = int(config.steps), 100

    def held_out():
        x, y = valid[:-1].view(windows, length), valid[1:].view(windows, length)
        with torch.no_grad():
            parts = [
                F.cross_entropy(net(a).flatten(0, 1), b.flatten(), reduction="sum")
                for a, b in zip(x.split(12), y.split(12), strict=True)
            ]
        return float(sum(parts)) / y.numel()

    for step in range(steps + 1):
        for _ in range(PASSES.count(step)):
            loss_now = held_out()
        if step == steps:
            break
        progress = max(step - warmup, 0) / (steps - warmup)
        rate = min(1, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = hp.lr * rate
        rows = torch.randint(len(train) - length - 1, (config.batch_size, 1)) + torch.arange(
            length + 1
        )
        batch = train[rows]
        loss = F.cross_entropy(net(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), hp.grad_clip)
        optimizer.step()
    print(f"validation loss {loss_now:.3f}")


def main():
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--side", choices=("pytorch",), help=argparse.SUPPRESS)
    arguments.add_argument("--workdir", help=argparse.SUPPRESS)
    args = arguments.parse_args()
    if args.side:
        return pytorch()
    ours = [sys.executable, str(HERE.parent / "launch.py"), "train", f"--config={CONFIG}"]
    sides = dict(ours=ours, pytorch=[sys.executable, __file__, "--side=pytorch"])
    turns.processes(
        sides,
        args.rounds,
        lambda out: " ".join(next(line for line in out.splitlines() if "loss" in line).split()),
    )


if __name__ == "__main__":
    main()
