"""Convolutional VAE on Fashion-MNIST, in bits per dimension.

Paper      Kingma & Welling 2013 with convolutions; discretized logistic likelihood of
           256 grey levels (Kingma et al. 2016, section 5.2)
Command    aigc train --config=vae_conv_fashion --workdir=runs/vae_conv_fashion
Hardware   2 CPU cores: about 100 ms a step
Expect     after 2 epochs test bits_per_dim 4.10 (4.59 for a histogram of each pixel
           alone): docs/studies/vae.md (measured 2026-11); all 10 epochs were not run
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="vae",
            steps="10 epochs",
            batch_size=128,
            data=dict(name="fashion_mnist"),
            network="conv",
            model=dict(width=32, widths=((256,),)),
            latent_dims=(32,),
            likelihood="logistic",
            run=dict(eval_every="1 epoch", sample_every="1 epoch", save_every="1 epoch"),
        )
    )
