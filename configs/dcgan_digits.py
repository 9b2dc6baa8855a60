"""Convolutional GAN on 8x8 handwritten digits: the small sister of a DCGAN, for tests
and first looks.

Paper      after Radford et al. 2016 (rate 2e-4, beta1 0.5), without batch normalization
Command    aigc train --config=dcgan_digits --workdir=runs/dcgan_digits
Hardware   2 CPU cores: 36 s from start to finish, 265 steps/s (measured 2026-11)
Expect     test frechet_pixels 1.46 after 6,000 steps (1.47 for gan_digits after
           12,000), measured at seed 0, and 1.47 on another machine (56 s there); thin,
           mostly readable digits: docs/pictures/dcgan_digits.png
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="gan",
            steps="6000 steps",
            batch_size=64,
            data=dict(name="digits"),
            network="dcgan",
            model=dict(
                g=dict(base=64, channels=(64, 32), kernel=3, activation="leaky_relu", norm="none"),
                d=dict(channels=(32, 64), kernel=3, norm="none"),
            ),
            latent_dim=64,
            metrics=("frechet_pixels",),
            best_metric="valid/frechet_pixels",
        )
    )
