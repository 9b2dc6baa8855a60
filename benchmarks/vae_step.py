"""Time of one VAE training step, ours against the same network in PyTorch, alternating
on the same machine.

    pip install -r requirements.txt -r requirements-bench.txt -e .
    python benchmarks/vae_step.py [--rounds=7] [--seconds=4]

`configs/vae_mnist.py`: 784-500-20-500-784, ReLU, batch 128, Adam. Both sides draw
shuffled batches of black and white images from memory. PyTorch runs eagerly with its
fused Adam. "ours_four_trials" is four seeds in one program, one after another.
"""

from pathlib import Path

import turns

HERE = Path(__file__).resolve().parent
N = 50_000


def data():
    """Black and white noise of MNIST's size; the content does not affect the time."""
    import numpy as np

    return (np.random.RandomState(0).rand(N + 2000, 28, 28, 1) < 0.13).astype(np.uint8)


def ours(case, count=1):
    """A function that does n steps of every trial in one call, as training does."""
    import jax

    from aigc_jax.data.dataset import make_image_dataset
    from aigc_jax.training import config as configs
    from aigc_jax.training import config_files
    from aigc_jax.training.programs import Programs

    x = data()
    config = configs.resolve_durations(
        config_files.load(HERE.parent / "configs" / "vae_mnist.py"), N, 128
    )
    dataset = make_image_dataset(dict(train=dict(x=x[:N]), valid=dict(x=x[N:])), 1, {})
    programs = Programs(config, dataset, count, route="map")
    state = [programs.init([config] * count)]

    def steps(n):
        state[0], metrics = programs.train(state[0], 0, n)
        jax.block_until_ready((state[0], metrics))

    return steps


def pytorch_step(encoder, decoder, optimizer, batch):
    """One update by the negative ELBO of black and white images [B, D]."""
    import torch
    from torch.nn import functional as F

    mean, log_var = encoder(batch).chunk(2, dim=1)
    z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
    reconstruction = F.binary_cross_entropy_with_logits(decoder(z), batch, reduction="sum")
    kl = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum()
    optimizer.zero_grad()
    ((reconstruction + kl) / len(batch)).backward()
    optimizer.step()


def pytorch(case):
    """The same bound written plainly in PyTorch."""
    import torch
    from torch import nn

    x = torch.from_numpy(data()[:N]).reshape(N, 784)
    encoder = nn.Sequential(nn.Linear(784, 500), nn.ReLU(), nn.Linear(500, 40))
    decoder = nn.Sequential(nn.Linear(20, 500), nn.ReLU(), nn.Linear(500, 784))
    optimizer = torch.optim.Adam(
        [*encoder.parameters(), *decoder.parameters()], lr=1e-3, fused=True
    )
    order = [torch.randperm(N), 0]

    def steps(n):
        for _ in range(n):
            if order[1] + 128 > N:
                order[:] = torch.randperm(N), 0
            rows = order[0][order[1] : order[1] + 128]
            order[1] += 128
            batch = x[rows].float()
            pytorch_step(encoder, decoder, optimizer, batch)

    return steps


SIDES = {"ours": ours, "pytorch": pytorch, "ours_four_trials": lambda case: ours(case, 4)}
CASES = {"vae_mnist": ("MLP VAE 784-500-20, batch 128", tuple(SIDES))}

if __name__ == "__main__":
    turns.main(__file__, __doc__, CASES, SIDES)
