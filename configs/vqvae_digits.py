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
            model=dict(channels=(32,), size=8, residual=1),
            codebook_size=64,
            hp=dict(restart=0.05),
            run=dict(eval_every="500 steps", sample_every="500 steps", save_every="500 steps"),
        )
    )
