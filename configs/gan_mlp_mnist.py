"""MLP GAN on MNIST: the smallest networks that draw digits.

Paper      Goodfellow et al. 2014, with the non-saturating loss and Adam (Radford et al. 2016: rate 2e-4, beta1 0.5)
Command    python launch.py train --config=configs/gan_mlp_mnist.py --workdir=runs/gan_mlp_mnist
Hardware   2 CPU cores: 108 s from start to finish for 100 epochs with 430 sample grids, 514 steps/s; 58 s for 20,000 steps
           (measured 2026-11)
Expect     test frechet_pixels 12.3 after 100 epochs (42,969 steps), 15.2 after 20,000 steps, with 5,000 samples, measured at seed 0;
           digits that can be read, with speckles: docs/pictures/gan_mlp_mnist.png
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(dict(
        method="gan",
        steps="100 epochs",
        batch_size=128,
        data=dict(name="mnist"),
        network="mlp",
        model=dict(
            g=dict(widths=(256,), activation="relu", output="tanh"),
            d=dict(widths=(256,), activation="leaky_relu"),
        ),
        z=100,
        loss="non_saturating",
        critic_steps=1,
        optimizer="adam",
        schedule=dict(name="constant", warmup="0 steps"),
        hp=dict(lr_g=2e-4, lr_d=2e-4, beta1=0.5, beta2=0.999, ema=0.999),
        metrics=("frechet_pixels",),
        metric_samples=5000,
        best="valid/frechet_pixels",
        run=dict(eval_every="2000 steps", sample_every="100 steps", save_every="2000 steps"),
    ))
