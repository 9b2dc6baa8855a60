"""Convolutional VAE on a directory of pictures, 128x128 in colour: data.path names it.

Paper      Kingma & Welling 2013 with convolutions; Gaussian likelihood with one learned variance (Rybkin et al. 2021)
Command    python launch.py train --config=configs/vae_conv_folder.py --workdir=runs/vae_conv_folder --config.data.path=my_pictures
Hardware   2 CPU cores
Expect     not measured yet
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(dict(
        method="vae",
        steps="1000 steps",
        batch_size=64,
        data=dict(name="folder", size=128),
        network="conv",
        model=dict(width=32, kernel=4, widths=((512,),), activation="relu"),
        z=(128,),
        likelihood="gaussian_scalar",
        binarize="none",
        prior="normal",
        bound="elbo",
        k=1,
        penalty="none",
        conditional=False,
        nll_samples=5000,
        optimizer="adam",
        schedule=dict(name="constant", warmup="0 steps"),
        anneal=dict(name="constant", period="0 steps"),
        hp=dict(lr=3e-4, beta1=0.9, beta2=0.999, beta=1.0),
        best="valid/neg_elbo",
        run=dict(eval_every="100 steps", sample_every="100 steps", save_every="100 steps"),
    ))
