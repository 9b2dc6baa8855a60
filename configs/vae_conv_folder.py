"""Convolutional VAE on a directory of pictures, 128x128 in colour: data.path names it.

Paper      Kingma & Welling 2013 with convolutions; Gaussian likelihood with one learned
           variance (Rybkin et al. 2021)
Command    aigc train --config=vae_conv_folder --workdir=runs/vae_conv_folder \
               --config.data.path=my_pictures
Hardware   2 CPU cores: 1.6 s a step beside another job, 14 minutes
Expect     on 6,000 animals of CIFAR-10 blurs of where it is bright and dark, hardly any
           colour yet: test squared error 0.080 a pixel in [-1, 1] (0.225 for the mean
           picture, 0.020 for PCA with 128 components): docs/studies/vae.md (measured
           2026-11). Meant for longer runs
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="vae",
            steps="500 steps",
            batch_size=64,
            data=dict(name="folder", size=128),
            network="conv",
            model=dict(width=16, widths=((512,),)),
            latent_dims=(128,),
            likelihood="gaussian_scalar",
            run=dict(eval_every="100 steps", sample_every="100 steps", save_every="100 steps"),
        )
    )
