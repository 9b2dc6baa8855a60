"""VQ-VAE on MNIST: 7x7 codes a picture.

Paper      van den Oord et al. 2017, with the codebook by moving averages (appendix A.1)
Command    aigc train --config=vqvae_mnist --workdir=runs/vqvae_mnist
Hardware   2 CPU cores: 5 minutes beside another job
Expect     test perplexity 95 of 128 codes, squared error 0.0147 a pixel in [-1, 1]:
           docs/vae.md (measured 2026-11)
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="vqvae",
            steps="2000 steps",
            batch_size=128,
            data=dict(name="mnist"),
            model=dict(channels=(32, 64), size=16, kernel=4, residual=2, activation="relu"),
            codebook_size=128,
            likelihood="gaussian",
            binarize="none",
            optimizer="adam",
            schedule=dict(name="constant", warmup="0 steps"),
            hp=dict(
                lr=1e-3,
                beta1=0.9,
                beta2=0.999,
                commitment=0.25,
                ema_decay=0.99,
                restart=0.05,
                sigma=0.3,
            ),
            best_metric="valid/reconstruction",
            run=dict(eval_every="500 steps", sample_every="500 steps", save_every="500 steps"),
        )
    )
