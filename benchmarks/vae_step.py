"""Time of one training step of VAEs and of a VQ-VAE, ours against the same network in
PyTorch, alternating on the same machine.

    pip install -r requirements.txt -r requirements-bench.txt -e .
    python benchmarks/vae_step.py [--case=vae_mnist] [--rounds=7] [--seconds=4]

Both sides draw shuffled batches of 128 images from memory, black and white ones for
`vae_mnist`, and update by Adam; PyTorch runs eagerly with its fused Adam, convolutions
in its default memory layout and channels last; the faster is compared.
"ours_four_trials" is four seeds in one program, one after another.
"""

from pathlib import Path

import limits
import peers
import turns

HERE = Path(__file__).resolve().parent
N = 50_000
MORE = {}  # overrides of every config


def data(case):
    """Noise of MNIST's size; the content does not affect the time."""
    import numpy as np

    if case == "vae_mnist":
        return (np.random.RandomState(0).rand(N + 2000, 28, 28, 1) < 0.13).astype(np.uint8)
    return np.random.RandomState(0).randint(0, 256, (N + 2000, 28, 28, 1)).astype(np.uint8)


def config_of(case):
    from aigc_jax.training import config as configs
    from aigc_jax.training import config_files

    config = config_files.load(HERE.parent / "configs" / f"{case}.py")
    config = configs.override(config, MORE)
    return configs.resolve_durations(config, N, config.batch_size)


def setting(case, count=1):
    """The config and the programs of `count` trials of it, on images of noise."""
    from aigc_jax.data.dataset import make_image_dataset
    from aigc_jax.training.programs import Programs

    x, config = data(case), config_of(case)
    splits = dict(train=dict(x=x[:N]), valid=dict(x=x[N:]))
    dataset = make_image_dataset(splits, 1 if case == "vae_mnist" else 255, {})
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


def bernoulli(x, decoded, log_scale):
    """log p of black and white images, [B, ...] -> []."""
    from torch.nn import functional as F

    return -F.binary_cross_entropy_with_logits(decoded, x, reduction="sum")


def discretized_logistic(x, decoded, log_scale):
    """log p of 256 grey levels in [-1, 1] (Salimans et al. 2017, eq. 2), -> []."""
    import torch
    from torch.nn import functional as F

    scale = torch.exp(-(-7 + F.softplus(log_scale + 7)))
    width, centre = 2 / 255 * scale, (x - decoded) * scale
    upper, lower = F.logsigmoid(centre + width / 2), F.logsigmoid(width / 2 - centre)
    inside = upper + lower + torch.log(-torch.expm1(-width))
    return torch.where(x < -1 + 1 / 255, upper, torch.where(x > 1 - 1 / 255, lower, inside)).sum()


def negative_elbo(encoder, decoder, batch, noise, log_prob=bernoulli, log_scale=None):
    """The mean bound of images [B, ...], for noise [B, Z]."""
    import torch

    mean, log_var = encoder(batch).chunk(2, dim=1)
    z = mean + torch.exp(0.5 * log_var) * noise
    kl = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum()
    return (kl - log_prob(batch, decoder(z), log_scale)) / len(batch)


def pytorch_step(encoder, decoder, optimizer, batch):
    """One update by the bound of black and white images [B, D]."""
    import torch

    latents = decoder[0].in_features
    loss = negative_elbo(encoder, decoder, batch, torch.randn(len(batch), latents))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def networks(case, nn):
    """PyTorch's encoder and decoder of a case."""
    if case == "vae_mnist":
        encoder = nn.Sequential(nn.Linear(784, 500), nn.ReLU(), nn.Linear(500, 40))
        return encoder, nn.Sequential(nn.Linear(20, 500), nn.ReLU(), nn.Linear(500, 784))
    return convolutional(nn) if case == "vae_conv_fashion" else vector_quantized(nn)


def convolutional(nn):
    """1-32-64 channels to 7x7, 256 units, 32 latents, and back."""
    conv = lambda i, o: nn.Conv2d(i, o, 4, 2, 1)
    encoder = [conv(1, 32), nn.ReLU(), conv(32, 64), nn.ReLU(), nn.Flatten()]
    encoder += [nn.Linear(64 * 49, 256), nn.ReLU(), nn.Linear(256, 64)]
    decoder = [nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 64 * 49)]
    decoder += [nn.Unflatten(1, (64, 7, 7)), nn.ReLU(), nn.ConvTranspose2d(64, 64, 4, 2, 1)]
    decoder += [nn.ReLU(), nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU()]
    return nn.Sequential(*encoder), nn.Sequential(*decoder, nn.Conv2d(32, 1, 4, padding="same"))


def vector_quantized(nn):
    """1-32-64 channels to 7x7, two residual blocks, 16 numbers a code, and back."""

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 64, 1)
            self.act = nn.ReLU()

        def forward(self, x):
            return x + self.conv2(self.act(self.conv1(self.act(x))))

    encoder = [nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU()]
    encoder += [Residual(), Residual(), nn.ReLU(), nn.Conv2d(64, 16, 1)]
    decoder = [nn.Conv2d(16, 64, 3, padding=1), Residual(), Residual(), nn.ReLU()]
    decoder += [nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1)]
    return nn.Sequential(*encoder), nn.Sequential(*decoder)


def quantize(z, codes):
    """The encoder's outputs [B, D, h, w] as rows [M, D], the index of the nearest code
    of each, and these as images.
    """
    rows = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
    chosen = (codes.square().sum(-1) - 2 * rows @ codes.T).argmin(-1)
    b, d, h, w = z.shape
    return rows, chosen, codes[chosen].view(b, h, w, d).permute(0, 3, 1, 2)


def vqvae_loss(decoder, hp, x, z, code):
    """The loss of van den Oord et al. 2017, eq. 3, without its second term."""
    import math

    decoded = decoder(z + (code - z).detach())
    error = (
        0.5 * ((x - decoded) / hp.sigma) ** 2 + math.log(hp.sigma * (2 * math.pi) ** 0.5)
    ).sum()
    return (error + hp.commitment * (z - code.detach()).square().sum()) / len(x)


def update_codebook(book, rows, chosen, hp):
    """Moving averages of the outputs of each code; rare codes become random outputs."""
    import torch
    from torch.nn import functional as F

    n, share = len(book["counts"]), len(rows) / len(book["counts"])
    which = F.one_hot(chosen, n).to(rows.dtype)
    book["counts"].lerp_(which.sum(0), 1 - hp.ema_decay)
    book["sums"].lerp_(which.T @ rows, 1 - hp.ema_decay)
    dead = (book["counts"] < hp.restart * share) | (book["counts"] == 0)
    drawn = rows[torch.randint(len(rows), (n,), device=rows.device)]
    book["counts"] = torch.where(dead, share, book["counts"])
    book["sums"] = torch.where(dead[:, None], share * drawn, book["sums"])
    book["codes"] = book["sums"] / book["counts"][:, None]


def pytorch(case, layout="contiguous_format", prepare=lambda function: function):
    """The same step written plainly in PyTorch, on its default device; its loss as
    `prepare` makes that function.
    """
    from types import SimpleNamespace

    import torch
    from torch import nn

    config, layout = config_of(case), getattr(torch, layout)
    batch, hp = config.batch_size, SimpleNamespace(**config.hp.to_dict())
    x = torch.from_numpy(data(case)[:N]).to(torch.get_default_device())
    x = x.reshape(N, 784) if case == "vae_mnist" else x.permute(0, 3, 1, 2)
    encoder, decoder = (net.to(memory_format=layout) for net in networks(case, nn))
    log_scale = torch.zeros((), requires_grad=True)
    params = [*encoder.parameters(), *decoder.parameters()]
    if case == "vae_conv_fashion":
        params.append(log_scale)
    optimizer = torch.optim.Adam(params, lr=hp.lr, fused=True)
    zeros = lambda *shape: torch.zeros(config.get("codebook_size", 0), *shape)
    book = dict(codes=zeros(16), counts=zeros(), sums=zeros(16))

    def loss_of(x):
        if case == "vae_mnist":
            return negative_elbo(encoder, decoder, x, torch.randn(batch, 20, device=x.device))
        x = (x / 127.5 - 1).contiguous(memory_format=layout)
        if case == "vae_conv_fashion":
            noise = torch.randn(batch, 32, device=x.device)
            return negative_elbo(encoder, decoder, x, noise, discretized_logistic, log_scale)
        z = encoder(x)
        rows, chosen, code = quantize(z, book["codes"])
        with torch.no_grad():
            update_codebook(book, rows.detach(), chosen, hp)
        return vqvae_loss(decoder, hp, x, z, code)

    prepared, order = prepare(loss_of), [torch.randperm(N, device=x.device), 0]

    def steps(n):
        for _ in range(n):
            if order[1] + batch > N:
                order[:] = torch.randperm(N, device=x.device), 0
            rows = order[0][order[1] : order[1] + batch]
            order[1] += batch
            loss = prepared(x[rows].float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return steps


# -- the same losses on both sides


def in_order(tree):
    """The layers of a tree of parameters, by the numbers in their names."""
    if "kernel" in tree:
        return [tree]
    names = sorted(tree, key=lambda name: int(name.split("_")[1]))
    return [layer for name in names for layer in in_order(tree[name])]


def own_layers(case, net):
    """Our encoder and decoder as `peers.copy_parameters` takes them."""
    import numpy as np

    number = lambda kind, layers: {f"{kind}_{i}": layer for i, layer in enumerate(layers)}
    if case == "vqvae_mnist":
        down, up = in_order(net["down"]), in_order(net["up"])
        return number("Conv", down), number("Conv", up[:-2]) | number("ConvTranspose", up[-2:])
    q, p = net["q_0"], dict(net["p_0"])
    both = {k: np.concatenate([q["mean"][k], q["log_var"][k]], -1) for k in ("kernel", "bias")}
    encoder = number("Dense", [*in_order(q["Perceptron_0"]), both])
    dense = in_order(p.pop("Perceptron_0"))
    if case == "vae_mnist":
        return encoder, number("Dense", [*dense, p["Dense_0"]])
    p["Conv_0"] = p.pop("ConvTranspose_2")  # of stride 1
    return net["reader"] | encoder, p | number("Dense", dense)


def own_losses(config, spec, state, x, noise, book):
    """Our losses of one batch; of a VQ-VAE also the codebook after it."""
    import jax.numpy as jnp
    import numpy as np

    from aigc_jax.methods import vqvae
    from aigc_jax.methods.latents import Draw, Model

    if config.method == "vae":
        model = Model(config, spec)
        mean, log_var = model.apply_method(state.params, "encode", 0, x, None)
        draw = Draw((mean + np.exp(0.5 * log_var) * noise)[None], mean, log_var)
        log_p, kl = model.elbo_terms(state.params, state.hp, x, None, [draw])
        return dict(neg_elbo=float((kl - log_p).mean()))
    model = vqvae.VQVAE(config, spec)
    z, chosen, codes = model.encode(state.params, book, x)
    error, distance = model.loss_terms(state.params, state.hp, x, z, codes)
    rows, hp = z.reshape(-1, z.shape[-1]), state.hp
    after = vqvae.update_codebook(book, rows, chosen.ravel(), hp["ema_decay"], 0, state.key)
    loss = float((error + hp["commitment"] * distance).mean())
    return dict(loss=loss, codes=float(jnp.square(after["codes"]).sum()))


def their_losses(case, config, nets, x, noise, book, log_scale):
    """PyTorch's losses of the same batch."""
    import torch

    if case == "vae_mnist":
        return dict(neg_elbo=float(negative_elbo(*nets, x.flatten(1), noise)))
    if config.method == "vae":
        more = discretized_logistic, torch.tensor(log_scale)
        return dict(neg_elbo=float(negative_elbo(*nets, x, noise, *more)))
    z = nets[0](x)
    rows, chosen, code = quantize(z, book["codes"])
    loss = float(vqvae_loss(nets[1], config.hp, x, z, code))
    config.hp.restart = 0.0  # without random codes
    update_codebook(book, rows, chosen, config.hp)
    return dict(loss=loss, codes=float(book["codes"].square().sum()))


def check(case):
    """{loss: (ours, PyTorch's)} of one batch with the same parameters and noise."""
    import jax
    import numpy as np
    import torch
    from torch import nn

    config, programs = setting(case)
    state = jax.tree.map(lambda x: x[0], programs.init([config]))
    random = np.random.RandomState(1)
    normal = lambda *shape: random.standard_normal(shape).astype(np.float32)
    # Parameters that differ from 0, so that no layer is hidden by the one after it.
    state = state.replace(params=jax.tree.map(lambda p: p + 0.01 * normal(*p.shape), state.params))
    # Mirrored images have mirrored layers, as `copy_parameters` makes them.
    x = data(case)[:128].astype(np.float32) / (1 if case == "vae_mnist" else 127.5)
    x -= 0 if case == "vae_mnist" else 1
    noise = normal(128, config.get("latent_dims", (1,))[0])
    codes = 0.1 * normal(config.get("codebook_size", 1), config.model.get("size", 1))
    book = dict(codes=codes, counts=np.ones(len(codes), np.float32), sums=codes.copy())
    own = own_losses(config, programs.dataset.spec, state, x, noise, book)

    params = jax.tree.map(np.array, state.params["net"])
    nets = networks(case, nn)
    for net, layers in zip(nets, own_layers(case, params), strict=True):
        peers.copy_parameters(layers, net)
    mirror = (lambda x: x) if case == "vae_mnist" else (lambda x: x[:, ::-1, ::-1])
    images = torch.from_numpy(mirror(x).copy()).permute(0, 3, 1, 2)
    with torch.no_grad():
        book = {k: torch.from_numpy(v) for k, v in book.items()}
        noise = torch.from_numpy(noise)
        scale = params.get("spread")
        theirs = their_losses(case, config, nets, images, noise, book, scale)
    return {name: (own[name], theirs[name]) for name in own}


SIDES = {
    "ours": ours,
    "pytorch": pytorch,
    "pytorch_channels_last": lambda case: pytorch(case, "channels_last"),
    "ours_four_trials": lambda case: ours(case, 4),
    "limit": lambda case: limits.limit(*setting(case)),
}
CONV = ("ours", "pytorch", "pytorch_channels_last", "limit")
CASES = {
    "vae_mnist": (
        "MLP VAE 784-500-20, batch 128",
        ("ours", "pytorch", "ours_four_trials", "limit"),
    ),
    "vae_conv_fashion": ("VAE 28x28-14x14x32-7x7x64-256-32, 4x4, logistic, batch 128", CONV),
    "vqvae_mnist": ("VQ-VAE 28x28-14x14x32-7x7x64-7x7x16, 128 codes, batch 128", CONV),
}

if __name__ == "__main__":
    turns.main(__file__, __doc__, CASES, SIDES, check)
