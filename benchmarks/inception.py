"""Is our Inception-v3 that of pytorch-fid? The same random weights in both, read from
each kind of file, the same images: features and logits.

    pip install -r requirements.txt -r requirements-bench.txt -e .
    python benchmarks/inception.py [--images=10] [--timed=50]

pytorch-fid's network is built without its download and given random weights, with
running statistics of such images, so that no layer's values vanish or explode.
Features and resizing are those of its own InceptionV3, whose input is images in [0,
1]. Differences, from what it computes in float64, are the largest over all values,
relative to the largest value: ours and, for comparison, its own in float32. So many
layers multiply what float32 rounds; both in float64 tell whether the networks are the
same. The exit code is 1 where ours are above 1e-4, or 1e-9 in float64. Compiling is not
timed.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
MOST, MOST_IN_FLOAT64 = 1e-4, 1e-9


def theirs():
    """pytorch-fid's (InceptionV3, which returns features; the network inside, with
    its logits).
    """
    import torch
    import torchvision
    from pytorch_fid import inception

    torch.manual_seed(0)
    untouched = mock.patch.object(torchvision.models.Inception3, "load_state_dict", lambda *_: None)
    with mock.patch.object(inception, "load_state_dict_from_url", lambda *_, **__: {}), untouched:
        net = inception.fid_inception_v3()
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # running statistics are means over its inputs
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.normal_(layer.bias, std=0.2)
    torch.nn.init.normal_(net.fc.bias)
    with torch.no_grad():
        smooth = torch.nn.functional.interpolate(
            torch.randn(8, 3, 32, 32), (299, 299), mode="bilinear"
        )
        net.train()(torch.tanh(torch.cat([smooth, torch.randn(8, 3, 299, 299)])))
    with mock.patch.object(inception, "fid_inception_v3", lambda: net):
        return inception.InceptionV3().eval(), net.eval()


def reference_outputs(fid, net, x):  # [n, H, W, 3] in [-1, 1] -> [n, 2048], [n, 1008]
    """pytorch-fid's features and logits, in the dtype of the images."""
    import torch

    x = torch.from_numpy(x)
    fid.to(x.dtype), net.to(x.dtype)
    with torch.no_grad():
        features = fid(x.permute(0, 3, 1, 2) / 2 + 0.5)[0].flatten(1)
        return features.numpy(), net.fc(features).numpy()


def relative_differences(actual, expected):
    return [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(actual, expected, strict=True)]


def save(state, folder):
    """{kind: file} of the same tensors."""
    import torch
    from safetensors.torch import save_file

    files = {
        kind: Path(folder, name)
        for kind, name in dict(
            zip="zip.pth", older="older.pth", safetensors="x.safetensors"
        ).items()
    }
    torch.save(state, files["zip"])
    torch.save(state, files["older"], _use_new_zipfile_serialization=False)
    save_file({name: x.contiguous() for name, x in state.items()}, files["safetensors"])
    return files


def seconds(extract, x):
    """Of the second call, for 1,000 images."""
    extract(x)
    begun = time.perf_counter()
    extract(x)
    return (time.perf_counter() - begun) / len(x) * 1000


def compare(files, net, images, expected, single):
    """Print how far ours are from what is expected, with the weights of each file; (the
    largest difference, the largest in float64).
    """
    import jax

    from aigc_jax.models.inception import InceptionV3
    from aigc_jax.training import inception_features
    from aigc_jax.utils import tensor_files

    ours = jax.jit(
        lambda weights, x: InceptionV3().apply(
            {"params": weights}, inception_features.resize_images(x)
        )
    )
    worst = 0.0
    print(
        "\n| file | images | features, difference (pytorch-fid's) | logits, difference "
        "(pytorch-fid's) |\n|---|---|---|---|"
    )
    for kind, file in files.items():
        weights = inception_features.convert_state_dict(tensor_files.read_tensors(file), file)
        for side, x in images.items():
            differences = relative_differences(ours(weights, x), expected[side])
            worst = max(worst, *differences)
            columns = " | ".join(
                f"{a:.1e} ({b:.1e})" for a, b in zip(differences, single[side], strict=True)
            )
            print(f"| {kind} | {len(x)} of {side}x{side} | {columns} |", flush=True)
    with jax.enable_x64(True):
        weights = inception_features.convert_state_dict(
            {name: x.numpy() for name, x in net.state_dict().items()}, "the network", np.float64
        )
        double = relative_differences(ours(weights, images[32].astype(np.float64)), expected[32])
    print(f"| both in float64 | {len(images[32])} of 32x32 | {double[0]:.1e} | {double[1]:.1e} |")
    return worst, max(double)


def main():
    from aigc_jax.training import inception_features

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10, help="of each size")
    parser.add_argument("--timed", type=int, default=50, help="images of 32x32 that are timed")
    args = parser.parse_args()
    fid, net = theirs()
    random = np.random.RandomState(0)
    draw = lambda n, side: np.tanh(random.randn(n, side, side, 3)).astype(np.float32)
    images = {side: draw(args.images, side) for side in (32, 299)}
    expected = {
        side: reference_outputs(fid, net, x.astype(np.float64)) for side, x in images.items()
    }
    single = {
        side: relative_differences(reference_outputs(fid, net, x), expected[side])
        for side, x in images.items()
    }
    for side, (features, logits) in expected.items():
        print(
            f"{side}x{side}: features of mean {features.mean():.3f} and spread "
            f"{features.std():.3f}, logits of spread {logits.std():.3f}"
        )
    with tempfile.TemporaryDirectory() as folder:
        files = save(net.state_dict(), folder)
        worst, double = compare(files, net, images, expected, single)
        extractor = inception_features.load_inception(files["zip"])
    features, logits = expected[32]
    p = np.exp(logits - logits.max(1, keepdims=True))
    differences = relative_differences(
        extractor(images[32]), (features, p / p.sum(1, keepdims=True))
    )
    worst = max(worst, *differences)
    print(
        f"\nthe extractor: difference of features {differences[0]:.1e}, of probabilities "
        f"{differences[1]:.1e}"
    )
    x = draw(args.timed, 32)
    print(
        f"1,000 images of 32x32: ours {seconds(extractor, x):.0f} s, pytorch-fid "
        f"{seconds(lambda x: reference_outputs(fid, net, x), x):.0f} s"
    )
    print(
        f"the largest difference is {worst:.1e}, and {MOST:.0e} is allowed; in float64 "
        f"{double:.1e}, and {MOST_IN_FLOAT64:.0e}"
    )
    return int(not (worst <= MOST and double <= MOST_IN_FLOAT64))


if __name__ == "__main__":
    sys.exit(main())
