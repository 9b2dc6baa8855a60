"""Importance weighted autoencoder on MNIST, one stochastic layer.

Paper      Burda et al. 2016, section 5 and table 1: 200-200 tanh, 50 latents, batch 20,
           Adam with epsilon 1e-4, rates in eight stages. Two layers:
           --config.model.widths="((200,200),(100,100))"
           --config.latent_dims="(100,50)". Theirs has Glorot's initialization
Command    aigc train --config=iwae_burda --workdir=runs/iwae_burda \
               --config.num_importance_samples=50
Hardware   2 CPU cores; the whole of 3,280 epochs is meant for an accelerator, shorter
           runs keep the shape of the schedule
Expect     test NLL (first 1,000 pictures) 93.0 with k = 5 after 20,000 steps of 100
           pictures (experiments/iwae_against_elbo.py); 86.93 (whole split) with
           400-400-50, ReLU, after 80 epochs: docs/studies/vae.md (measured 2026-11)
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="vae",
            steps="3280 epochs",
            batch_size=20,
            data=dict(name="mnist"),
            network="mlp",
            model=dict(widths=((200, 200),), activation="tanh"),
            latent_dims=(50,),
            binarize="dynamic",
            objective="iwae",
            num_importance_samples=5,
            optimizer="adam_1e-4",
            schedule=dict(name="burda"),
            best_metric="valid/neg_iwae",
            run=dict(eval_every="1 epoch", sample_every="1 epoch", save_every="1 epoch"),
        )
    )
