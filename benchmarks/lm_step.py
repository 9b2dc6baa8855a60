"""Time of one training step of language models, ours against the same network in
PyTorch, alternating on the same machine.

    pip install -r requirements.txt -r requirements-bench.txt -e .
    python benchmarks/lm_step.py [--case=gpt_shakespeare_cpu] [--rounds=7] [--seconds=4]

Both sides draw random windows of a text of noise from memory, or pairs of such texts;
what they say does not matter to the clock. PyTorch runs eagerly with its fused AdamW,
its scaled_dot_product_attention and nn.LSTM. "ours_four_trials" is four seeds in one
program, one after another.
"""

import contextlib
from pathlib import Path

import limits
import turns

HERE = Path(__file__).resolve().parent
N = 500_000
PAIRS = 2_000


def tokens(size):
    import numpy as np

    return np.random.RandomState(0).randint(0, size, N).astype(np.uint16)


def noise_pairs(size, most):
    """Sources and targets of 8 to `most` tokens."""
    import numpy as np

    rng = np.random.RandomState(0)
    return [
        tuple(rng.randint(0, size - 2, rng.randint(8, most + 1)) for _ in range(2))
        for _ in range(PAIRS)
    ]


def dataset_of(config, size):
    """Noise as one of our data sets."""
    from types import SimpleNamespace

    import numpy as np

    from aigc_jax.data import pairs, windows

    length = config.data.length
    if config.method == "seq2seq":
        rows, sizes = noise_pairs(size, length), np.ones((size, 2), np.uint8)
        splits = dict(train=rows, valid=rows[:64], test=rows[:64])
        return pairs.make_encoder_decoder_dataset(
            config.data,
            splits,
            SimpleNamespace(size=size, end=size - 2, token_sizes=sizes, decode=str, mask=None),
            dict(text={}),
        )
    blank = windows.make_placeholder_dataset(size, length, N // length)
    return blank._replace(
        arrays=blank.arrays | dict(tokens=np.resize(tokens(size), len(blank.arrays["tokens"])))
    )


def config_of(case, more=None):
    from aigc_jax.training import config as configs
    from aigc_jax.training import config_files

    return configs.override(
        config_files.load(HERE.parent / "configs" / f"{case}.py"), {"metrics": ()} | (more or {})
    )


def setting(case, count=1, more=None):
    """The config and the programs of `count` trials of it. more: overrides of the
    config.
    """
    from aigc_jax.training import config as configs
    from aigc_jax.training.programs import Programs

    config = config_of(case, more)
    dataset = dataset_of(config, SIZES[case])
    config = configs.resolve_durations(
        configs.override(config, {"steps": 10_000}), dataset.spec.n_train, config.batch_size
    )
    return config, Programs(config, dataset, count, route="map")


def ours(case, count=1, more=None):
    """A function that does n steps of every trial in one call, as training does."""
    import jax

    config, programs = setting(case, count, more)
    state = [programs.init([config] * count)]

    def steps(n):
        state[0], metrics = programs.train(state[0], 0, n)
        jax.block_until_ready((state[0], metrics))

    return steps


def transformer(model, vocabulary):
    """A decoder-only Transformer with learned positions, written plainly."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    width, heads, bias = model.width, model.heads, model.get("bias", True)
    dropout = model.get("dropout", 0.0)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = (nn.LayerNorm(width, bias=bias) for _ in range(2))
            self.qkv, self.out = (
                nn.Linear(width, 3 * width, bias=bias),
                nn.Linear(width, width, bias=bias),
            )
            self.up, self.down = (
                nn.Linear(width, 4 * width, bias=bias),
                nn.Linear(4 * width, width, bias=bias),
            )

        def forward(self, x):
            b, t, _ = x.shape
            q, k, v = (
                y.view(b, t, heads, -1).transpose(1, 2)
                for y in self.qkv(self.norm1(x)).chunk(3, dim=-1)
            )
            y = (
                F.scaled_dot_product_attention(q, k, v, is_causal=True)
                .transpose(1, 2)
                .reshape(b, t, width)
            )
            x = x + F.dropout(self.out(y), dropout)
            return x + F.dropout(
                self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh")), dropout
            )

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.position = (
                nn.Embedding(vocabulary, width),
                nn.Embedding(model.context, width),
            )
            self.blocks = nn.ModuleList(Block() for _ in range(model.layers))
            self.norm, self.head = (
                nn.LayerNorm(width, bias=bias),
                nn.Linear(width, vocabulary, bias=False),
            )
            self.apply(
                lambda m: (
                    isinstance(m, (nn.Linear, nn.Embedding)) and nn.init.normal_(m.weight, std=0.02)
                )
            )
            self.head.weight = self.embed.weight

        def forward(self, tokens):
            x = F.dropout(
                self.embed(tokens)
                + self.position(torch.arange(tokens.shape[1], device=tokens.device)),
                dropout,
            )
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    return Net()


def encoder_decoder(config, vocabulary):
    """The Transformer of Vaswani et al. 2017 with norms before the layers, written
    plainly: (source, its mask, tokens) -> logits.
    """
    import torch
    from torch import nn
    from torch.nn import functional as F

    model = config.model
    width, heads, dropout = model.width, model.heads, model.dropout

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.kv, self.out = (
                nn.Linear(width, width),
                nn.Linear(width, 2 * width),
                nn.Linear(width, width),
            )

        def forward(self, x, memory, mask=None, causal=False):
            split = lambda y: y.view(*y.shape[:2], heads, -1).transpose(1, 2)
            k, v = self.kv(memory).chunk(2, dim=-1)
            y = F.scaled_dot_product_attention(
                split(self.q(x)), split(k), split(v), attn_mask=mask, is_causal=causal
            )
            return self.out(y.transpose(1, 2).reshape(x.shape))

    class Block(nn.Module):
        def __init__(self, cross):
            super().__init__()
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3 if cross else 2))
            self.attention, self.cross = Attention(), Attention() if cross else None
            self.up, self.down = nn.Linear(width, model.hidden), nn.Linear(model.hidden, width)

        def forward(self, x, mask, memory=None):
            y = self.norms[0](x)
            x = x + F.dropout(
                self.attention(y, y, None if self.cross else mask, causal=self.cross is not None),
                dropout,
            )
            if self.cross:
                x = x + F.dropout(self.cross(self.norms[1](x), memory, mask), dropout)
            return x + F.dropout(self.down(F.relu(self.up(self.norms[-1](x)))), dropout)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(vocabulary, width)
            self.encoder = nn.ModuleList(Block(False) for _ in range(model.layers))
            self.decoder = nn.ModuleList(Block(True) for _ in range(model.layers))
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
            self.head = nn.Linear(width, vocabulary, bias=False)
            angle = torch.arange(model.context)[:, None] / 10_000 ** (
                torch.arange(0, width, 2) / width
            )
            encoding = torch.cat([angle.sin(), angle.cos()], dim=1)
            self.register_buffer("position", encoding * 0.02 * 2**0.5)
            self.apply(
                lambda m: (
                    isinstance(m, (nn.Linear, nn.Embedding)) and nn.init.normal_(m.weight, std=0.02)
                )
            )
            self.head.weight = self.embed.weight

        def place(self, tokens):
            return F.dropout(self.embed(tokens) + self.position[: tokens.shape[1]], dropout)

        def forward(self, source, mask, tokens):
            memory, x, mask = self.place(source), self.place(tokens), mask[:, None, None]
            for block in self.encoder:
                memory = block(memory, mask)
            memory = self.norms[0](memory)
            for block in self.decoder:
                x = block(x, mask, memory)
            return self.head(self.norms[1](x))

    return Net()


def lstm(model, vocabulary):
    """nn.LSTM between an embedding and a linear layer, or the same embedding after a
    projection to its width; dropout around all layers.
    """
    from torch import nn
    from torch.nn import functional as F

    dropout = model.dropout

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(vocabulary, model.embedding)
            self.lstm = nn.LSTM(
                model.embedding, model.width, model.layers, batch_first=True, dropout=model.dropout
            )
            self.head = nn.Linear(
                model.embedding if model.tied else model.width, vocabulary, bias=not model.tied
            )
            self.projection = (
                nn.Linear(model.width, model.embedding)
                if model.tied and model.embedding != model.width
                else nn.Identity()
            )
            if model.tied:
                self.head.weight = self.embed.weight

        def forward(self, tokens):
            hs = self.lstm(F.dropout(self.embed(tokens), dropout))[0]
            return self.head(self.projection(F.dropout(hs, dropout)))

    return Net()


def network(config, vocabulary):
    """PyTorch's network of a config."""
    if config.method == "seq2seq":
        return encoder_decoder(config, vocabulary)
    return (transformer if config.network == "transformer" else lstm)(config.model, vocabulary)


def pair_loss(net, config, size, prepare):
    """() -> the loss of a batch of pairs."""
    import torch
    from torch.nn import functional as F

    data, length, end = noise_pairs(size, config.data.length), config.data.length, size - 2
    fill = lambda rows, width: torch.tensor([[*row, *[end] * (width - len(row))] for row in rows])
    sources = fill([a for a, _ in data], length)
    targets = fill([[end, *b] for _, b in data], length + 2)
    is_token = torch.arange(length) < torch.tensor([len(a) for a, _ in data])[:, None]
    counts = torch.arange(length + 1) <= torch.tensor([len(b) for _, b in data])[:, None]
    smoothing = config.label_smoothing

    def loss_of(source, mask, target, is_label):
        logits = net(source, mask, target[:, :-1])
        labels = target[:, 1:].masked_fill(~is_label, -100)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=smoothing)

    prepared = prepare(loss_of)

    def loss():
        i = torch.randint(len(data), (config.batch_size,), device=sources.device)
        return prepared(sources[i], is_token[i], targets[i], counts[i])

    return loss


def window_loss(net, config, size, prepare):
    """() -> the loss of a batch of windows."""
    import torch
    from torch.nn import functional as F

    length = config.data.length
    data = torch.from_numpy(tokens(size)[: N // 2].astype("int64")).to(torch.get_default_device())
    smoothing = config.label_smoothing

    def loss_of(batch):
        logits, labels = net(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten()
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)

    prepared = prepare(loss_of)

    def loss():
        start = torch.randint(len(data) - length - 1, (config.batch_size, 1), device=data.device)
        return prepared(data[start + torch.arange(length + 1, device=data.device)])

    return loss


def pytorch(case, more=None, prepare=lambda function: function, around=contextlib.nullcontext):
    """The same step written plainly in PyTorch, on its default device; its loss as
    `prepare` makes that function, within `around`.
    """
    import torch

    config, size = config_of(case, more), SIZES[case]
    net = network(config, size)
    matrices = [p for p in net.parameters() if p.dim() > 1]
    groups = [
        dict(params=matrices, weight_decay=config.hp.weight_decay),
        dict(params=[p for p in net.parameters() if p.dim() < 2], weight_decay=0.0),
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=config.hp.lr, betas=(config.hp.beta1, config.hp.beta2), fused=True
    )
    make_loss = pair_loss if config.method == "seq2seq" else window_loss
    loss_of = make_loss(net, config, size, prepare)

    def steps(n):
        for _ in range(n):
            with around():
                loss = loss_of()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), config.hp.grad_clip)
            optimizer.step()

    return steps


# -- the same losses on both sides


def parameters(ours, size):
    """{name in PyTorch's network: value} of our parameters."""
    import numpy as np

    named = {"embed.weight": ours["embed"]["embedding"][:size]}
    if "position" in ours:
        named["position.weight"] = ours["position"]["embedding"]

    def add(name, layer):
        named[f"{name}.weight"] = layer["kernel"].T if "kernel" in layer else layer["scale"]
        if "bias" in layer:
            named[f"{name}.bias"] = layer["bias"]

    def add_block(name, block, cross):
        for part in ("up", "down"):
            add(f"{name}.{part}", block["feed_forward"][part])
        attention, norms = block["attention"], ["norm_attention", "norm_feed_forward"]
        if name.startswith("blocks"):
            add(f"{name}.qkv", attention["qkv"])
            add(f"{name}.out", attention["out"])
            for i, norm in enumerate(norms):
                add(f"{name}.norm{i + 1}", block[norm])
            return
        qkv = attention["qkv"]
        third = qkv["kernel"].shape[1] // 3
        add(f"{name}.attention.q", {k: v[..., :third] for k, v in qkv.items()})
        add(f"{name}.attention.kv", {k: v[..., third:] for k, v in qkv.items()})
        add(f"{name}.attention.out", attention["out"])
        for part in ("q", "kv", "out") if cross else ():
            add(f"{name}.cross.{part}", block["cross_attention"][part])
        for i, norm in enumerate([norms[0], *["norm_cross"] * cross, norms[1]]):
            add(f"{name}.norms.{i}", block[norm])

    stacks = {"encoder": "encoder", "stack": "decoder" if "encoder" in ours else "blocks"}
    for own, theirs in stacks.items():
        layers = ours.get(own, {})
        for i in range(len(layers) - 1):
            add_block(f"{theirs}.{i}", layers[f"layer_{i}"], cross=theirs == "decoder")
    if "encoder" in ours:
        add("norms.0", ours["encoder"]["last"])
        add("norms.1", ours["stack"]["last"])
    elif "stack" in ours:
        add("norm", ours["stack"]["last"])
    for i in range(len(ours)):
        if layer := ours.get(f"layer_{i}"):
            named[f"lstm.weight_ih_l{i}"] = layer["kernel"].T
            named[f"lstm.weight_hh_l{i}"] = layer["recurrent_kernel"].T
            named[f"lstm.bias_ih_l{i}"] = layer["bias"]
            named[f"lstm.bias_hh_l{i}"] = 0 * layer["bias"]
    if "projection" in ours:
        add("projection", ours["projection"])
    return {k: np.ascontiguousarray(v) for k, v in named.items()}


def check(case):
    """{loss: (ours, PyTorch's)} of one batch without dropout, with the same
    parameters.
    """
    import jax
    import numpy as np
    import torch
    from torch.nn import functional as F

    config, programs = setting(case, more={"model.dropout": 0.0})
    size, rows = SIZES[case], 4
    state = jax.tree.map(lambda x: x[0], programs.init([config]))
    batch = jax.tree.map(
        np.asarray, programs.dataset.take(programs.dataset.arrays, np.arange(rows))
    )
    batch = batch | dict(weight=np.ones(rows, np.float32))
    sums = programs.method.evaluate(state, batch)

    net = network(config, size)
    named = {k: torch.from_numpy(v) for k, v in parameters(state.params["net"], size).items()}
    with torch.no_grad():
        for name, value in net.named_parameters():
            value.copy_(named.pop(name))
        assert not named, f"PyTorch's network has no {sorted(named)}"
        words = torch.from_numpy(batch["tokens"].astype("int64"))
        if config.method == "seq2seq":
            source = torch.from_numpy(batch["source"].astype("int64"))
            logits = net(source, torch.from_numpy(batch["source_mask"] > 0), words[:, :-1])
        else:
            logits = net(words[:, :-1])
        mask = torch.from_numpy(np.array(batch.get("mask", np.ones(words[:, 1:].shape))))
        nats = F.cross_entropy(logits.transpose(1, 2), words[:, 1:], reduction="none")
        theirs = float((nats * mask).sum() / mask.sum())
    return dict(nats=(float(sums["nats"] / sums["tokens"]), theirs))


SIDES = {
    "ours": ours,
    "pytorch": pytorch,
    "ours_four_trials": lambda case: ours(case, 4),
    "limit": lambda case: limits.limit(*setting(case)),
}
TWO = ("ours", "pytorch", "limit")
SIZES = {
    "gpt_shakespeare_cpu": 65,
    "gpt_base": 10_000,
    "transformer_base": 10_000,
    "lstm_text": 10_000,
    "gpt2_124m": 50_257,
}
CASES = {
    "gpt_shakespeare_cpu": ("GPT 4 x 128, windows of 64, batch 12", tuple(SIDES)),
    "gpt_base": ("GPT 6 x 512, 10,000 tokens, windows of 128, batch 8", TWO),
    "transformer_base": (
        "encoder-decoder 6 + 6 x 512, 10,000 tokens, 64 pairs of at most 32",
        TWO,
    ),
    "lstm_text": ("LSTM 2 x 1024, 10,000 tokens", TWO),
}

if __name__ == "__main__":
    turns.main(__file__, __doc__, CASES, SIDES, check)
