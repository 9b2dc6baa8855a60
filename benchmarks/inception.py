"""Is our Inception-v3 that of pytorch-fid? The same random weights in both, read from each kind of file, the same pictures: features and logits.

    pip install -r requirements.txt -r requirements-bench.txt
    python benchmarks/inception.py [--pictures=20]

pytorch-fid's network is built without its download and given random weights, with running statistics taken from the pictures themselves so that
no layer's values vanish or explode. Differences are the largest over all values, relative to the largest value. Exit code 1 above 1e-4.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
MOST = 1e-4


def theirs():
    """pytorch-fid's network with random weights, and the same with its own resizing in front."""
    import torch
    from pytorch_fid import inception

    torch.manual_seed(0)
    states = []

    def loaded(*args, **kwargs):  # in place of the download: the network as it was initialised
        net = inception._inception_v3(num_classes=1008, aux_logits=False, weights=None)
        inception_blocks(net, inception)
        states.append(net)
        return net.state_dict()

    def inception_blocks(net, it):
        net.Mixed_5b, net.Mixed_5c = it.FIDInceptionA(192, pool_features=32), it.FIDInceptionA(256, pool_features=64)
        net.Mixed_5d = it.FIDInceptionA(288, pool_features=64)
        for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            setattr(net, f"Mixed_{name}", it.FIDInceptionC(768, channels_7x7=width))
        net.Mixed_7b, net.Mixed_7c = it.FIDInceptionE_1(1280), it.FIDInceptionE_2(2048)

    inception.load_state_dict_from_url = loaded
    net = inception.fid_inception_v3()
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # running statistics are means over what it sees
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.normal_(layer.bias, std=0.2)
    net.train()
    with torch.no_grad():
        net(torch.rand(8, 3, 299, 299) * 2 - 1)
    return net.eval()


def answers(net, x):
    """(features, logits) for pictures [n, H, W, 3] in [-1, 1]."""
    import torch
    from torch.nn import functional as F

    kept = {}
    hook = net.avgpool.register_forward_hook(lambda module, given, out: kept.update(features=out.flatten(1)))
    with torch.no_grad():
        y = F.interpolate(torch.from_numpy(x).permute(0, 3, 1, 2), size=(299, 299), mode="bilinear", align_corners=False)
        logits = net(y)
    hook.remove()
    return kept["features"].numpy(), logits.numpy()


def main():
    import jax
    import torch
    from safetensors.torch import save_file

    from aigc_jax import inception, torch_files
    from aigc_jax.models.inception import InceptionV3

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=20, help="of each size")
    args = parser.parse_args()
    net, random = theirs(), np.random.RandomState(0)
    state = {name: x for name, x in net.state_dict().items() if "num_batches" not in name}
    ours = jax.jit(lambda weights, x: InceptionV3().apply({"params": weights}, inception.enlarged(x)))
    worst = 0.0
    print("| file | pictures | features | logits |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        files = dict(zip=Path(folder, "zip.pth"), older=Path(folder, "older.pth"), safetensors=Path(folder, "x.safetensors"))
        torch.save(net.state_dict(), files["zip"])
        torch.save(net.state_dict(), files["older"], _use_new_zipfile_serialization=False)
        save_file({name: x.contiguous() for name, x in state.items()}, files["safetensors"])
        for name, file in files.items():
            weights = inception.params(torch_files.read(file), file)
            for side in (32, 299) if name == "zip" else (32,):
                x = np.tanh(random.randn(args.pictures, side, side, 3)).astype(np.float32)
                off = [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(ours(weights, x), answers(net, x), strict=True)]
                worst = max(worst, *off)
                print(f"| {name} | {args.pictures} of {side}x{side} | {off[0]:.1e} | {off[1]:.1e} |", flush=True)
        look = inception.extractor(files["zip"])
        x = np.tanh(random.randn(100, 32, 32, 3)).astype(np.float32)
        look(x)
        begun = time.perf_counter()
        look(x)
        print(f"{10 * (time.perf_counter() - begun):.0f} s for 1,000 pictures of 32x32")
    return int(worst > MOST)


if __name__ == "__main__":
    sys.exit(main())
