"""Ten epochs of a VAE on binarized MNIST from start to finish, ours against pythae's,
taking turns on the same machine.

    pip install -r requirements.txt -r requirements-bench.txt -e .
    AIGC_DATA_DIR=DIRECTORY python benchmarks/vae_epochs.py [--rounds=3]

Both are complete processes: start, data, compilation if necessary, ten epochs of
`configs/vae_mnist.py` with a pass over the valid split after each, checkpoints.
pythae's VAE has its own encoder and decoder with 500 in place of 512 units.
"""

import argparse
import sys
import time
from pathlib import Path

import turns

HERE = Path(__file__).resolve().parent


def pythae(workdir):
    """pythae's own training of the same network on the same images; prints its
    seconds without start and imports.
    """
    import numpy as np
    import torch
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainerConfig
    from torch import nn

    from aigc_jax import data
    from aigc_jax.training import config_files

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.hidden = nn.Sequential(nn.Linear(784, 500), nn.ReLU())
            self.mean, self.log_var = nn.Linear(500, 20), nn.Linear(500, 20)

        def forward(self, x):
            h = self.hidden(x.reshape(-1, 784))
            return ModelOutput(embedding=self.mean(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(20, 500), nn.ReLU(), nn.Linear(500, 784), nn.Sigmoid()
            )

        def forward(self, z):
            return ModelOutput(reconstruction=self.layers(z).reshape(-1, 1, 28, 28))

    dataset = data.load(config_files.load(HERE.parent / "configs" / "vae_mnist.py").data)
    images = {}
    for part in ("train", "valid"):
        start, count = dataset.splits[part]
        images[part] = (
            dataset.arrays["x"][start : start + count].reshape(-1, 1, 28, 28).astype(np.float32)
        )
    model = VAE(
        VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce"),
        encoder=Encoder(),
        decoder=Decoder(),
    )
    training = BaseTrainerConfig(
        output_dir=workdir,
        num_epochs=10,
        learning_rate=1e-3,
        per_device_train_batch_size=128,
        per_device_eval_batch_size=128,
        optimizer_cls="Adam",
        no_cuda=True,
    )
    begun = time.perf_counter()
    TrainingPipeline(model=model, training_config=training)(
        train_data=images["train"], eval_data=images["valid"]
    )
    print(f"training alone {time.perf_counter() - begun:.1f} s; torch {torch.__version__}")


def main():
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--side", choices=("pythae",), help=argparse.SUPPRESS)
    arguments.add_argument("--workdir", help=argparse.SUPPRESS)
    args = arguments.parse_args()
    if args.side:
        return pythae(args.workdir)
    sides = {
        "ours": [
            sys.executable,
            str(HERE.parent / "launch.py"),
            "train",
            f"--config={HERE.parent / 'configs' / 'vae_mnist.py'}",
        ],
        "pythae": [sys.executable, __file__, "--side=pythae"],
    }
    turns.processes(sides, args.rounds, lambda out: out.splitlines()[-1])


if __name__ == "__main__":
    main()
