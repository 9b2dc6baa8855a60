"""VQ-VAE on 8x8 handwritten digits: for tests and first looks.

Paper      van den Oord et al. 2017, with the codebook by moving averages (appendix A.1)
Command    aigc train --config=vqvae_digits --workdir=runs/vqvae_digits
Hardware   2 CPU cores: 14 s from start to finish
Expect     test perplexity 58 of 64 codes, squared error 1.25 a picture of 64 pixels in
           [-1, 1] (measured 2026-11)
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="vqvae",
            steps="2000 steps",
            batch_size=64,
            data=dict(name="digits"),
            model=dict(channels=(32,), size=8, kernel=4, residual=1, activation="relu"),
            codebook_size=64,
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
