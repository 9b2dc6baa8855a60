"""The menu of GANs on MNIST with one pair of small networks: what
experiments/gan_menu.py compares.

Paper      after Lucic et al. 2018, who compare losses under equal budgets: two hidden
           layers on either side, Adam 2e-4 with beta1 0.5 (Radford et al. 2016) for
           all; weights of the penalties as in their papers
Command    aigc train --config=gan_menu_mnist --workdir=runs/menu --config.loss=hinge \
               --config.model.d.spectral=True
           aigc sweep --experiment=gan_menu --workdir=runs/menu
Hardware   2 CPU cores: three seeds as one program 42 s from start to finish, once
           nothing else runs (measured 2026-11)
Expect     test frechet 319 as it stands, 150 with R1, 148 with spectral normalization,
           means of three seeds: experiments/results/gan_menu
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="gan",
            steps="5000 steps",
            batch_size=64,
            data=dict(name="mnist"),
            network="mlp",
            model=dict(g=dict(widths=(256, 256)), d=dict(widths=(256, 256))),
            latent_dim=64,
            metrics=("frechet", "prdc"),
            num_metric_samples=5000,
            best_metric="valid/frechet",
            run=dict(eval_every="5000 steps", sample_every="5000 steps", save_every="5000 steps"),
        )
    )
