"""Time of one VAE training step, ours against the same network in PyTorch, alternating
on the same machine.

    pip install -r requirements.txt -r requirements-bench.txt -e .
    python benchmarks/vae_step.py [--rounds=7] [--seconds=4]

`configs/vae_mnist.py`: 784-500-20-500-784, ReLU, batch 128, Adam. Both sides draw
shuffled batches of black and white images from memory. PyTorch runs eagerly with its
fused Adam. "ours_four_trials" is four seeds in one program, one after another.
"""

from pathlib import Path

import limits
import turns

HERE = Path(__file__).resolve().parent
N = 50_000


def data():
    """Black and white noise of MNIST's size; the content does not affect the time."""
    import numpy as np

    return (np.random.RandomState(0).rand(N + 2000, 28, 28, 1) < 0.13).astype(np.uint8)


def setting(case, count=1):
    """The config and the programs of `count` trials of it, on images of noise."""
    from aigc_jax.data.dataset import make_image_dataset
    from aigc_jax.training import config as configs
    from aigc_jax.training import config_files
    from aigc_jax.training.programs import Programs

    x = data()
    config = configs.resolve_durations(
        config_files.load(HERE.parent / "configs" / f"{case}.py"), N, 128
    )
    dataset = make_image_dataset(dict(train=dict(x=x[:N]), valid=dict(x=x[N:])), 1, {})
    return config, Programs(config, dataset, count, route="map")


def ours(case, count=1):
    """A function that does n steps of every trial in one call, as training does."""
    import jax

    config, programs = setting(case, count)
    state = [programs.init([config] * count)]

    def steps(n):
        state[0], metrics = programs.train(state[0], 0, n)
        jax.block_until_ready((state[0], metrics))

    return steps


def negative_elbo(encoder, decoder, batch, noise):
    """The mean bound of black and white images [B, D], for noise [B, Z]."""
    import torch
    from torch.nn import functional as F

    mean, log_var = encoder(batch).chunk(2, dim=1)
    z = mean + torch.exp(0.5 * log_var) * noise
    reconstruction = F.binary_cross_entropy_with_logits(decoder(z), batch, reduction="sum")
    kl = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum()
    return (reconstruction + kl) / len(batch)


def pytorch_step(encoder, decoder, optimizer, batch):
    """One update by the bound of black and white images [B, D]."""
    import torch

    latents = decoder[0].in_features
    loss = negative_elbo(encoder, decoder, batch, torch.randn(len(batch), latents))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def networks():
    from torch import nn

    encoder = nn.Sequential(nn.Linear(784, 500), nn.ReLU(), nn.Linear(500, 40))
    return encoder, nn.Sequential(nn.Linear(20, 500), nn.ReLU(), nn.Linear(500, 784))


def pytorch(case):
    """The same bound written plainly in PyTorch."""
    import torch

    x = torch.from_numpy(data()[:N]).reshape(N, 784)
    encoder, decoder = networks()
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
            pytorch_step(encoder, decoder, optimizer, x[rows].float())

    return steps


def check(case):
    """{loss: (ours, PyTorch's)} of one batch with the same parameters and noise."""
    import jax
    import numpy as np
    import torch

    from aigc_jax.methods.latents import Draw, Model

    config, programs = setting(case)
    state = jax.tree.map(lambda x: x[0], programs.init([config]))
    model, x = Model(config, programs.dataset.spec), data()[:128].astype(np.float32)
    noise = np.random.RandomState(1).standard_normal((128, 20)).astype(np.float32)
    mean, log_var = model.apply_method(state.params, "encode", 0, x, None)
    draw = Draw((mean + np.exp(0.5 * log_var) * noise)[None], mean, log_var)
    log_p, kl = model.elbo_terms(state.params, state.hp, x, None, [draw])

    encoder, decoder = networks()
    net = jax.tree.map(np.array, state.params["net"])
    q, p = net["q_0"], net["p_0"]
    both = {k: np.concatenate([q["mean"][k], q["log_var"][k]], -1) for k in ("kernel", "bias")}
    layers = [q["Perceptron_0"]["Dense_0"], both, p["Perceptron_0"]["Dense_0"], p["Dense_0"]]
    with torch.no_grad():
        for module, layer in zip((*encoder[::2], *decoder[::2]), layers, strict=True):
            module.weight.copy_(torch.from_numpy(layer["kernel"].T))
            module.bias.copy_(torch.from_numpy(layer["bias"]))
        flat, noise = torch.from_numpy(x).reshape(128, 784), torch.from_numpy(noise)
        theirs = float(negative_elbo(encoder, decoder, flat, noise))
    return dict(neg_elbo=(float((kl - log_p).mean()), theirs))


SIDES = {
    "ours": ours,
    "pytorch": pytorch,
    "ours_four_trials": lambda case: ours(case, 4),
    "limit": lambda case: limits.limit(*setting(case)),
}
CASES = {"vae_mnist": ("MLP VAE 784-500-20, batch 128", tuple(SIDES))}

if __name__ == "__main__":
    turns.main(__file__, __doc__, CASES, SIDES, check)
