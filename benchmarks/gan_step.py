"""Time of one GAN training step, ours against the same networks in PyTorch, alternating
on the same machine.

    pip install -r requirements.txt -r requirements-bench.txt -e .
    python benchmarks/gan_step.py [--case=dcgan] [--rounds=7] [--seconds=4]

Both sides draw shuffled batches of images from memory, update the discriminator, then
the generator on the same fakes, by Adam, and average the generator's weights. PyTorch
runs eagerly with its fused Adam, its fastest on CPUs here; convolutions both in its
default memory layout and channels last; the faster is compared. Each side runs in a
process of its own, so that neither's thread pool disturbs the other; they take turns,
and medians are compared. For the convolutional GAN two more sides say what the loop and
the trials cost: the same step under plain jit, one call a step, and four trials one
after another (route "map"). Before the clock starts, both sides compute the losses of
one batch with the same parameters.
"""

from pathlib import Path

import limits
import peers
import turns

HERE = Path(__file__).resolve().parent
LAYOUTS = ("ours", "pytorch", "pytorch_channels_last", "limit")
CONV = (*LAYOUTS, "ours_plain_jit", "ours_four_trials")
PLAIN = {"model.g.norm": "none", "model.d.norm": "none"}
# The two layers of PyTorch's DCGAN below, and the sizes that it is built from.
TWO = {"model.d.channels": (64, 128), "model.g.dense": (), "model.d.dense": ()}
MNIST = dict(shape=(28, 28, 1), kernel=5, base=128, up=(128, 64), stride=1, down=(64, 128))
LARGE = {"data.name": "mnist", "data.size": 64}
SMALLER = LARGE | {"model.g.channels": (128, 64), "model.d.channels": (64, 128, 256)}
FOLDER = dict(kernel=4, base=256, stride=2, slope=0.01)
RESNET = {
    "data.name": "mnist",
    "critic_steps": 1,
    "loss": "non_saturating",
    "model.g.width": 64,
    "model.d.width": 64,
    "model.d.spectral": False,
}
# Name -> what it is, its config, what is set in it, and the sides that are timed.
CASES = {
    "mlp": ("MLP GAN 100-256-784, batch 128", "gan_mlp_mnist", {}, ("ours", "pytorch", "limit")),
    "dcgan": ("DCGAN 100-7x7x128-28x28, 5x5, batch 128", "dcgan_mnist", TWO | PLAIN, CONV),
    "dcgan_batch_norm": ("the same with batch normalization", "dcgan_mnist", TWO, CONV),
    "dcgan_64": ("DCGAN 8x8x256-64x64x3, 4x4, batch 64", "dcgan_folder", SMALLER | PLAIN, LAYOUTS),
    "dcgan_128": ("DCGAN 8x8x256-128x128x3, 4x4, batch 64", "dcgan_folder", LARGE, LAYOUTS),
    "resnet": (
        "ResNet GAN, width 64, 32x32x3, batch norm in G, batch 64",
        "sngan_hinge_cifar10",
        RESNET,
        LAYOUTS,
    ),
}
# Case -> the sizes of PyTorch's networks
SIZES = {
    "dcgan": MNIST,
    "dcgan_batch_norm": MNIST | dict(norms="gd"),
    "dcgan_64": FOLDER | dict(shape=(64, 64, 3), up=(128, 64), down=(64, 128, 256)),
    "dcgan_128": FOLDER
    | dict(shape=(128, 128, 3), up=(128, 64, 32), down=(64, 128, 256, 512), norms="gd"),
    "resnet": dict(shape=(32, 32, 3)),
}
ROWS = {28: 55_000, 32: 10_000, 64: 4_000, 128: 1_000}  # training images by their side


def config_of(case):
    from aigc_jax.training import config as configs
    from aigc_jax.training import config_files

    _, name, overrides, _ = CASES[case]
    return configs.override(config_files.load(HERE.parent / "configs" / f"{name}.py"), overrides)


def shape_of(case):
    return SIZES.get(case, MNIST)["shape"]


def data(case):
    """Training images of the case's size; what they show does not matter to time."""
    import numpy as np

    shape = shape_of(case)
    return np.random.RandomState(0).randint(0, 256, (ROWS[shape[0]], *shape)).astype(np.uint8)


def task(case, **more):
    """The config of a case and its data set, images of noise. more: overrides."""
    from aigc_jax.data.dataset import make_image_dataset
    from aigc_jax.training import config as configs

    x, config = data(case), configs.override(config_of(case), more)
    splits = dict(train=dict(x=x), valid=dict(x=x[:512]), test=dict(x=x[:512]))
    config = configs.resolve_durations(config, len(x), config.batch_size)
    return config, make_image_dataset(splits, 255, {})


def setting(case, count=1):
    """The config and the programs of `count` trials of it, on images of noise."""
    from aigc_jax.training.programs import Programs

    config, dataset = task(case)
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


def plain_jit(case):
    """The same step, compiled alone and called n times."""
    import jax

    from aigc_jax.training.compilation import COMPILER

    state, step, batches = limits.single_step(*setting(case))
    options = COMPILER.get(jax.default_backend())
    compiled = (
        jax.jit(step, donate_argnums=0).lower(state, batches).compile(compiler_options=options)
    )
    state = [state]

    def steps(n):
        for _ in range(n):
            state[0], metrics = compiled(state[0], batches)
        jax.block_until_ready((state[0], metrics))

    return steps


def pytorch(case, layout="contiguous_format", prepare=lambda function: function):
    """The same GAN written plainly in PyTorch, on its default device; its generator and
    its losses as `prepare` makes these functions.
    """
    import torch
    from torch import nn
    from torch.nn import functional as F

    config = config_of(case)
    x = torch.from_numpy(data(case)).to(torch.get_default_device())
    batch, z, hp = config.batch_size, config.latent_dim, config.hp
    layout = getattr(torch, layout)
    g, d = (net.to(memory_format=layout) for net in networks(case, nn))
    generate = prepare(g)
    loss_d = prepare(lambda real, fake: F.softplus(-d(real)).mean() + F.softplus(d(fake)).mean())
    loss_g = prepare(lambda fake: F.softplus(-d(fake)).mean())
    average = [p.detach().clone() for p in g.parameters()]
    adam = dict(betas=(hp.beta1, hp.beta2), eps=1e-8, fused=True)
    optimizer_g = torch.optim.Adam(g.parameters(), lr=hp.lr_g, **adam)
    optimizer_d = torch.optim.Adam(d.parameters(), lr=hp.lr_d, **adam)
    order = [torch.randperm(len(x), device=x.device), 0]

    def steps(n):
        for _ in range(n):
            if order[1] + batch > len(x):
                order[:] = torch.randperm(len(x), device=x.device), 0
            rows = order[0][order[1] : order[1] + batch]
            order[1] += batch
            real = (
                (x[rows].float() / 127.5 - 1).permute(0, 3, 1, 2).contiguous(memory_format=layout)
            )
            fake = generate(torch.randn(batch, z, device=x.device))
            loss = loss_d(real, fake.detach())
            optimizer_d.zero_grad()
            loss.backward()
            optimizer_d.step()
            for p in d.parameters():
                p.requires_grad_(False)
            loss = loss_g(fake)
            optimizer_g.zero_grad()
            loss.backward()
            optimizer_g.step()
            for p in d.parameters():
                p.requires_grad_(True)
            with torch.no_grad():
                torch._foreach_lerp_(average, list(g.parameters()), 1 - hp.ema_decay)

    return steps


def networks(case, nn):
    """PyTorch's generator and discriminator of a case."""
    if case == "mlp":
        return mlp(nn)
    return resnet(nn) if case == "resnet" else dcgan(nn, **SIZES[case])


def mlp(nn):
    g = nn.Sequential(
        nn.Linear(100, 256), nn.ReLU(), nn.Linear(256, 784), nn.Unflatten(1, (1, 28, 28)), nn.Tanh()
    )
    d = nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1))
    return g, d


def dcgan(nn, shape, kernel, base, up, stride, down, norms="", slope=0.2):
    """In our order: no bias before a normalization, none on the first layer of D."""
    small, pad = shape[0] // 2 ** len(up) // stride, (kernel - 1) // 2
    normalize = lambda net, n: [nn.BatchNorm2d(n, momentum=0.1)] if net in norms else []
    act_g, act_d = nn.LeakyReLU(0.2) if kernel == 5 else nn.ReLU(), nn.LeakyReLU(slope)
    grow = lambda i, o, s, bias: nn.ConvTranspose2d(
        i, o, kernel, s, pad, output_padding=kernel % 2 if s > 1 else 0, bias=bias
    )
    g = [nn.Linear(100, base * small**2, bias="g" not in norms)]
    g += [nn.Unflatten(1, (base, small, small)), *normalize("g", base), act_g]
    for i, o in zip((base, *up), up, strict=False):
        g += [grow(i, o, 2, "g" not in norms), *normalize("g", o), act_g]
    g += [grow(up[-1], shape[2], stride, True), nn.Tanh()]
    d = []
    for layer, (i, o) in enumerate(zip((shape[2], *down), down, strict=False)):
        has_norm = layer > 0 and "d" in norms
        d += [nn.Conv2d(i, o, kernel, 2, pad, bias=not has_norm)]
        d += [*(normalize("d", o) if has_norm else []), act_d]
    side = shape[0] // 2 ** len(down)
    return nn.Sequential(*g), nn.Sequential(*d, nn.Flatten(), nn.Linear(down[-1] * side**2, 1))


def resnet(nn, width=64, latents=128):
    """SN-GAN's networks for 32x32 (Miyato et al. 2018, table 4) without spectral
    normalization; layers are made in the order in which ours are numbered.
    """
    conv = lambda i, o, k=3: nn.Conv2d(i, o, k, padding=k // 2)

    class Up(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
            self.conv1, self.conv2, self.skip = (
                conv(width, width),
                conv(width, width),
                conv(width, width, 1),
            )
            self.larger, self.act = nn.Upsample(scale_factor=2), nn.ReLU()

        def forward(self, x):
            y = self.conv1(self.larger(self.act(self.norm1(x))))
            return self.conv2(self.act(self.norm2(y))) + self.larger(self.skip(x))

    class Down(nn.Module):
        def __init__(self, depth, first, halve):
            super().__init__()
            self.first, self.act = first, nn.ReLU()
            self.shrink = nn.AvgPool2d(2) if halve else nn.Identity()
            self.conv1, self.conv2 = conv(depth, width), conv(width, width)
            self.skip = conv(depth, width, 1) if halve else nn.Identity()

        def forward(self, x):
            y = self.conv2(self.act(self.conv1(x if self.first else self.act(x))))
            return self.shrink(y) + self.skip(self.shrink(x))

    class Sum(nn.Module):
        def forward(self, x):
            return x.sum((2, 3))

    g = [nn.Linear(latents, 16 * width), nn.Unflatten(1, (width, 4, 4)), Up(), Up(), Up()]
    g += [nn.BatchNorm2d(width), nn.ReLU(), conv(width, 3), nn.Tanh()]
    d = [Down(3, True, True), *(Down(width, False, halve) for halve in (True, False, False))]
    return nn.Sequential(*g), nn.Sequential(*d, nn.ReLU(), Sum(), nn.Linear(width, 1))


# -- the same losses on both sides


def check(case):
    """{loss: (ours, PyTorch's)} of one batch with the same parameters and noise."""
    import jax
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F

    from aigc_jax.methods.gan_networks import GanNetworks

    config, programs = setting(case)
    state = jax.tree.map(lambda x: x[0], programs.init([config]))
    nets, stats = GanNetworks(config, programs.dataset.spec), state.extra["stats"]
    random = np.random.RandomState(1)
    # Parameters that differ from 0, so that no layer is hidden by the one after it.
    params = jax.tree.map(
        lambda p: p + 0.01 * random.standard_normal(p.shape).astype(np.float32), state.params
    )
    x = random.uniform(-1, 1, (16, *shape_of(case))).astype(np.float32)
    z = random.standard_normal((16, config.latent_dim)).astype(np.float32)
    fake, _ = nets.generate(params["g"], stats["g"], z, train=True)
    score = lambda x: nets.discriminate(params["d"], stats["d"], x, train=True)[0][0]
    real, made = score(x), score(fake)
    softplus = lambda x: float(jax.nn.softplus(x).mean())
    own = dict(d=softplus(-real) + softplus(made), g=softplus(-made))

    g, d = networks(case, nn)
    peers.copy_parameters(params["g"], g)
    peers.copy_parameters(params["d"], d)
    with torch.no_grad():
        mirrored = torch.from_numpy(x[:, ::-1, ::-1].copy()).permute(0, 3, 1, 2)
        real, made = d(mirrored), d(g(torch.from_numpy(z)))
        plus = lambda x: float(F.softplus(x).mean())
        theirs = dict(d=plus(-real) + plus(made), g=plus(-made))
    return {name: (own[name], theirs[name]) for name in own}


SIDES = {
    "ours": ours,
    "ours_plain_jit": plain_jit,
    "ours_four_trials": lambda case: ours(case, 4),
    "pytorch": pytorch,
    "pytorch_channels_last": lambda case: pytorch(case, "channels_last"),
    "limit": lambda case: limits.limit(*setting(case)),
}


if __name__ == "__main__":
    turns.main(
        __file__,
        __doc__,
        {name: (what, sides) for name, (what, _, _, sides) in CASES.items()},
        SIDES,
        check,
    )
