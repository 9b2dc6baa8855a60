"""Is our Inception-v3 that of pytorch-fid? The same random weights in both, read from each kind of file, the same pictures: features and logits.

    pip install -r requirements.txt -r requirements-bench.txt
    python benchmarks/inception.py [--pictures=10] [--timed=50]

pytorch-fid's network is built without its download and given random weights, with running statistics of such pictures, so that no layer's values
vanish or explode. Features and resizing are those of its own InceptionV3, which is given pictures in [0, 1]. Differences are the largest over all
values, relative to the largest value. The exit code is 1 above 1e-4. Compiling is not timed.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
MOST = 1e-4


def theirs():
    """pytorch-fid's (InceptionV3, whose features are asked for; the network inside, with its logits)."""
    import torch
    import torchvision
    from pytorch_fid import inception

    torch.manual_seed(0)
    untouched = mock.patch.object(torchvision.models.Inception3, "load_state_dict", lambda *_: None)
    with mock.patch.object(inception, "load_state_dict_from_url", lambda *_, **__: {}), untouched:
        net = inception.fid_inception_v3()
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # running statistics are means over what it sees
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.normal_(layer.bias, std=0.2)
    torch.nn.init.normal_(net.fc.bias)
    with torch.no_grad():
        smooth = torch.nn.functional.interpolate(torch.randn(8, 3, 32, 32), (299, 299), mode="bilinear")
        net.train()(torch.tanh(torch.cat([smooth, torch.randn(8, 3, 299, 299)])))
    with mock.patch.object(inception, "fid_inception_v3", lambda: net):
        return inception.InceptionV3().eval(), net.eval()


def answers(seeing, net, x):  # [n, H, W, 3] in [-1, 1] -> [n, 2048], [n, 1008]
    """pytorch-fid's features and logits."""
    import torch

    with torch.no_grad():
        features = seeing(torch.from_numpy(x).permute(0, 3, 1, 2) / 2 + 0.5)[0].flatten(1)
        return features.numpy(), net.fc(features).numpy()


def save(state, folder):
    """{kind: file} of the same tensors."""
    import torch
    from safetensors.torch import save_file

    files = {kind: Path(folder, name) for kind, name in dict(zip="zip.pth", older="older.pth", safetensors="x.safetensors").items()}
    torch.save(state, files["zip"])
    torch.save(state, files["older"], _use_new_zipfile_serialization=False)
    save_file({name: x.contiguous() for name, x in state.items()}, files["safetensors"])
    return files


def seconds(see, x):
    """Of the second call, for 1,000 pictures."""
    see(x)
    begun = time.perf_counter()
    see(x)
    return (time.perf_counter() - begun) / len(x) * 1000


def main():
    import jax

    from aigc_jax import inception, torch_files
    from aigc_jax.models.inception import InceptionV3

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10, help="of each size")
    parser.add_argument("--timed", type=int, default=50, help="pictures of 32x32 that are timed")
    args = parser.parse_args()
    seeing, net = theirs()
    random, worst = np.random.RandomState(0), 0.0
    draw = lambda n, side: np.tanh(random.randn(n, side, side, 3)).astype(np.float32)
    expected = {side: (x, *answers(seeing, net, x)) for side, x in ((side, draw(args.pictures, side)) for side in (32, 299))}
    for side, (_, features, logits) in expected.items():
        print(f"{side}x{side}: features of mean {features.mean():.3f} and spread {features.std():.3f}, logits of spread {logits.std():.3f}")
    ours = jax.jit(lambda weights, x: InceptionV3().apply({"params": weights}, inception.enlarged(x)))
    print("\n| file | pictures | features apart | logits apart |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for kind, file in save(net.state_dict(), folder).items():
            weights = inception.params(torch_files.read(file), file)
            for side, (x, *there) in expected.items():
                off = [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(ours(weights, x), there, strict=True)]
                worst = max(worst, *off)
                print(f"| {kind} | {len(x)} of {side}x{side} | {off[0]:.1e} | {off[1]:.1e} |", flush=True)
        look = inception.extractor(Path(folder, "zip.pth"))
    x, features, logits = expected[32]
    p = np.exp(logits - logits.max(1, keepdims=True))
    off = [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(look(x), (features, p / p.sum(1, keepdims=True)), strict=True)]
    worst = max(worst, *off)
    print(f"\nthe extractor: features {off[0]:.1e} apart, probabilities {off[1]:.1e}")
    x = draw(args.timed, 32)
    print(f"1,000 pictures of 32x32: ours {seconds(look, x):.0f} s, pytorch-fid {seconds(lambda x: answers(seeing, net, x), x):.0f} s")
    print(f"the largest difference is {worst:.1e}, and {MOST:.0e} is allowed")
    return int(not worst <= MOST)


if __name__ == "__main__":
    sys.exit(main())
