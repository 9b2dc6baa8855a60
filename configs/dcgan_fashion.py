"""Convolutional GAN on Fashion-MNIST: the networks and rates of dcgan_mnist.

Paper      Radford et al. 2016 (rate 2e-4, beta1 0.5, batch 128, batch normalization),
           with 5x5 kernels from 7x7x128 and the dense layers of Chen et al. 2016
Command    aigc train --config=dcgan_fashion --workdir=runs/dcgan_fashion
           (from the generator of digits, twice as fast, as
           experiments/fashion_from_digits.py compares:)
           aigc train --config=dcgan_fashion --workdir=runs/dcgan_fashion \
               --config.init_from=runs/dcgan_mnist \
               --config.init_match="params/g/|extra/ema|extra/stats/g"
Hardware   2 CPU cores: about 1.2 s a step, 25 minutes (measured 2026-11)
Expect     test frechet_pixels 18.5 (valid 528 untrained), measured at seed 0. Shirts,
           trousers, coats, shoes, boots and bags are plain to see, bright ones better
           than dark ones: docs/pictures/dcgan_fashion.png. Samples of the first 250
           steps are saturated: the averaged statistics of the normalization lag behind
           the averaged weights (docs/LOG.md)
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="gan",
            steps="1000 steps",
            batch_size=128,
            data=dict(name="fashion_mnist"),
            network="dcgan",
            model=dict(
                g=dict(
                    dense=(1024,),
                    width=64,
                    kernel=5,
                    activation="leaky_relu",
                    output="tanh",
                    norm="batch",
                ),
                d=dict(
                    channels=(64, 128, 256),
                    dense=(1024,),
                    kernel=5,
                    activation="leaky_relu",
                    norm="batch",
                ),
            ),
            latent_dim=100,
            loss="non_saturating",
            critic_steps=1,
            optimizer="adam",
            schedule=dict(name="constant", warmup="0 steps"),
            hp=dict(lr_g=2e-4, lr_d=2e-4, beta1=0.5, beta2=0.999, ema_decay=0.999),
            metrics=("frechet_pixels",),
            num_metric_samples=2000,
            best_metric="valid/frechet_pixels",
            run=dict(eval_every="100 steps", sample_every="250 steps", save_every="250 steps"),
        )
    )
