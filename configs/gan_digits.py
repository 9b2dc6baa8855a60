"""MLP GAN on 8x8 handwritten digits: half a minute, no download; what `make demo` runs.

Paper      Goodfellow et al. 2014, with the non-saturating loss and Adam (Radford et al.
           2016: rate 2e-4, beta1 0.5)
Command    aigc train --config=gan_digits --workdir=runs/gan_digits
Hardware   2 CPU cores: 24 s from start to finish, 1,260 steps/s (measured 2026-11)
Expect     test frechet_pixels 1.47 after 12,000 steps (49 untrained), measured at seed
           0, and 1.49 on another machine (47 s there); most samples can be read, see
           docs/pictures/gan_digits.png
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="gan",
            steps="12000 steps",
            batch_size=64,
            data=dict(name="digits"),
            network="mlp",
            model=dict(g=dict(widths=(256, 256)), d=dict(widths=(256, 256))),
            latent_dim=64,
            metrics=("frechet_pixels",),
            best_metric="valid/frechet_pixels",
            run=dict(eval_every="2000 steps", sample_every="2000 steps", save_every="2000 steps"),
        )
    )
