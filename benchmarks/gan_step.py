"""Time of one GAN training step, ours against the same networks in PyTorch, alternating
on the same machine.

    pip install -r requirements.txt -r requirements-bench.txt -e .
    python benchmarks/gan_step.py [--rounds=7] [--seconds=4]

Both sides draw shuffled MNIST-sized batches from memory, update the discriminator, then
the generator on the same fakes, by Adam, and average the generator's weights. PyTorch
runs eagerly with its fused Adam, its fastest on CPUs here; convolutions both in its
default memory layout and channels last, of which the faster counts. Each side runs in a
process of its own, so that neither's thread pool disturbs the other; they take turns,
and medians are compared. For the convolutional GAN two more sides say what the loop and
the trials cost: the same step under plain jit, one call a step, and four trials one
after another (route "map").
"""

from pathlib import Path

import turns

HERE = Path(__file__).resolve().parent
CONV = ("ours", "pytorch", "pytorch_channels_last", "ours_plain_jit", "ours_four_trials")
# The networks of DCGAN as PyTorch's below.
TWO = {"model.d.channels": (64, 128), "model.g.dense": (), "model.d.dense": ()}
# Name -> what it is, its config, what is set in it, and the sides that are timed.
CASES = {
    "mlp": ("MLP GAN 100-256-784, batch 128", "gan_mlp_mnist", {}, ("ours", "pytorch")),
    "dcgan": (
        "DCGAN 100-7x7x128-28x28, 5x5, batch 128",
        "dcgan_mnist",
        TWO | {"model.g.norm": "none", "model.d.norm": "none"},
        CONV,
    ),
    "dcgan_batch_norm": ("the same with batch normalization", "dcgan_mnist", TWO, CONV),
}


def config_of(case):
    from aigc_jax.training import config as configs
    from aigc_jax.training import config_files

    _, name, overrides, _ = CASES[case]
    return configs.override(config_files.load(HERE.parent / "configs" / f"{name}.py"), overrides)


def data():
    """Images of MNIST's size and type; what they show does not matter to time."""
    import numpy as np

    random = np.random.RandomState(0)
    return random.randint(0, 256, (60_000, 28, 28, 1)).astype(np.uint8)


def setting(case, count=1):
    """The config and the programs of `count` trials of it, on images of noise."""
    from aigc_jax.data.dataset import make_image_dataset
    from aigc_jax.training import config as configs
    from aigc_jax.training.programs import Programs

    x = data()
    splits = dict(train=dict(x=x[:55_000]), valid=dict(x=x[55_000:57_500]), test=dict(x=x[57_500:]))
    config = configs.resolve_durations(config_of(case), 55_000, 128)
    return config, Programs(config, make_image_dataset(splits, 255, {}), count, route="map")


def ours(case, count=1):
    """A function that does n steps of every trial in one call, as training does."""
    import jax

    config, programs = setting(case, count)
    state = [programs.init([config] * count)]

    def steps(n):
        state[0], metrics = programs.train(state[0], 0, n)
        jax.block_until_ready((state[0], metrics))

    return steps


def plain_jit(case):
    """The same step, compiled alone and called n times."""
    import jax

    from aigc_jax.core import transforms
    from aigc_jax.data.order import make_train_batch_reader
    from aigc_jax.training.compilation import COMPILER

    config, programs = setting(case)
    step = transforms.feed_batches(
        programs.method.step,
        make_train_batch_reader(programs.dataset, config.data, config.batch_size),
    )
    state = [jax.tree.map(lambda x: x[0], programs.init([config]))]
    options = COMPILER.get(jax.default_backend())
    compiled = (
        jax.jit(step, donate_argnums=0)
        .lower(state[0], programs.feed.training)
        .compile(compiler_options=options)
    )

    def steps(n):
        for _ in range(n):
            state[0], metrics = compiled(state[0], programs.feed.training)
        jax.block_until_ready((state[0], metrics))

    return steps


def pytorch(case, layout="contiguous_format", prepare=lambda net: net):
    """The same GAN written plainly in PyTorch, on its default device; its networks as
    `prepare` makes them.
    """
    import torch
    from torch import nn
    from torch.nn import functional as F

    config = config_of(case)
    x = torch.from_numpy(data()[:55_000]).to(torch.get_default_device())
    batch, z, hp = config.batch_size, config.latent_dim, config.hp
    layout = getattr(torch, layout)
    g, d = (prepare(net.to(memory_format=layout)) for net in NETWORKS[case](nn))
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
            real = (
                (x[rows].float() / 127.5 - 1).permute(0, 3, 1, 2).contiguous(memory_format=layout)
            )
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
                torch._foreach_lerp_(average, list(g.parameters()), 1 - hp.ema_decay)

    return steps


def mlp(nn):
    g = nn.Sequential(
        nn.Linear(100, 256), nn.ReLU(), nn.Linear(256, 784), nn.Tanh(), nn.Unflatten(1, (1, 28, 28))
    )
    d = nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1))
    return g, d


def dcgan(nn, norm=False):
    """In our order: no bias before a normalization, none on the first layer of D."""
    act = nn.LeakyReLU(0.2)
    after = lambda channels: ([nn.BatchNorm2d(channels, momentum=0.1)] if norm else []) + [act]
    up = lambda i, o: [
        nn.ConvTranspose2d(i, o, 5, stride=2, padding=2, output_padding=1, bias=not norm),
        *after(o),
    ]
    g = [
        nn.Linear(100, 6272, bias=not norm),
        nn.Unflatten(1, (128, 7, 7)),
        *after(128),
        *up(128, 128),
        *up(128, 64),
    ]
    first, second = (
        nn.Conv2d(1, 64, 5, stride=2, padding=2),
        nn.Conv2d(64, 128, 5, stride=2, padding=2, bias=not norm),
    )
    d = [first, act, second, *after(128), nn.Flatten(), nn.Linear(6272, 1)]
    return nn.Sequential(*g, nn.ConvTranspose2d(64, 1, 5, padding=2), nn.Tanh()), nn.Sequential(*d)


NETWORKS = {"mlp": mlp, "dcgan": dcgan, "dcgan_batch_norm": lambda nn: dcgan(nn, norm=True)}
SIDES = {
    "ours": ours,
    "ours_plain_jit": plain_jit,
    "ours_four_trials": lambda case: ours(case, 4),
    "pytorch": pytorch,
    "pytorch_channels_last": lambda case: pytorch(case, "channels_last"),
}


if __name__ == "__main__":
    turns.main(
        __file__,
        __doc__,
        {name: (what, sides) for name, (what, _, _, sides) in CASES.items()},
        SIDES,
    )
