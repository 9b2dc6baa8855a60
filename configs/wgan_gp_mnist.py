"""WGAN-GP on MNIST: five critic steps, gradient penalty, convolutions.

Paper      Gulrajani et al. 2017: penalty 10, 5 critic steps, Adam 1e-4 with beta1 0 and
           beta2 0.9, batch 64 (algorithm 1's defaults); no normalization in the critic
           (section 4); the networks are small ones of Radford et al. 2016
Command    aigc train --config=wgan_gp_mnist --workdir=runs/wgan_gp_mnist
Hardware   2 CPU cores: 0.14 s a step, 8 minutes (measured 2026-11)
Expect     test frechet_pixels 10.6, falling to the end (valid 27, 20, 17, 15, 14, 13
           every 500 steps). Of 10,000 samples by the MNIST classifier Fréchet distance
           52.7, precision 0.57, recall 0.89. Every second sample is a digit:
           docs/pictures/wgan_gp_mnist.png (measured at seed 0). The networks are half
           as wide as dcgan_mnist's and lack its dense layers
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="gan",
            steps="3000 steps",
            batch_size=64,
            data=dict(name="mnist"),
            network="dcgan",
            model=dict(g=dict(width=32), d=dict(width=32, norm="none")),
            latent_dim=64,
            loss="wasserstein",
            gan=dict(regularizers=("gradient_penalty",)),
            critic_steps=5,
            hp=dict(lr_g=0.0001, lr_d=0.0001, beta1=0.0, beta2=0.9),
            metrics=("frechet_pixels",),
            num_metric_samples=5000,
            best_metric="valid/frechet_pixels",
            run=dict(eval_every="500 steps", sample_every="500 steps", save_every="500 steps"),
        )
    )
