"""Parameters of ours in networks of PyTorch, so that both compute the same losses."""


def copy_parameters(ours, net):
    """Load parameters of ours into a network of PyTorch.

    Images are mirrored in both directions: with stride 2 and a kernel of 5, "SAME" pads
    one side more, which is the other side of PyTorch's.
    """
    import numpy as np
    import torch
    from torch import nn

    kinds = {nn.Linear: "Dense", nn.Conv2d: "Conv", nn.ConvTranspose2d: "ConvTranspose"}
    kinds |= {nn.BatchNorm2d: "BatchNorm"}
    modules = [m for m in net.modules() if not list(m.children())]
    counts, before = dict.fromkeys(kinds.values(), 0), None
    for module, after in zip(modules, [*modules[1:], None], strict=True):
        if type(module) not in kinds:
            before = module
            continue
        kind = kinds[type(module)]
        layer = {k: np.array(v) for k, v in ours[f"{kind}_{counts[kind]}"].items()}
        counts[kind] += 1
        weight = layer.get("kernel", layer.get("scale"))
        if kind == "Dense" and isinstance(after, nn.Unflatten):
            c, *size = after.unflattened_size
            order = np.arange(weight.shape[1]).reshape(*size, c)[::-1, ::-1].transpose(2, 0, 1)
            layer = {k: v[..., order.ravel()] for k, v in layer.items()}
            weight = layer["kernel"]
        elif kind == "Dense" and isinstance(before, nn.Flatten):
            c = last.out_channels if (last := find_last(modules, module, nn.Conv2d)) else 1
            side = round((len(weight) // c) ** 0.5)
            order = np.arange(len(weight)).reshape(side, side, c)[::-1, ::-1].transpose(2, 0, 1)
            weight = weight[order.ravel()]
        if kind == "Dense":
            weight = weight.T
        elif kind == "Conv":
            weight = weight[::-1, ::-1].transpose(3, 2, 0, 1)
        elif kind == "ConvTranspose":  # flax's does not flip the kernel, PyTorch's does
            weight = weight.transpose(2, 3, 0, 1)
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
            if module.bias is not None:
                module.bias.copy_(torch.from_numpy(np.ascontiguousarray(layer["bias"])))
        before = module


def find_last(modules, until, kind):
    """The last module of a kind before another one."""
    found = [m for m in modules[: modules.index(until)] if isinstance(m, kind)]
    return found[-1] if found else None
