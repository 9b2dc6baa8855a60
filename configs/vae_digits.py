"""VAE on 8x8 handwritten digits: a few seconds, no download.

Paper      Kingma & Welling 2013, appendix C.1, with ReLU and Adam; black and white
           pictures drawn anew each step from the grey levels
Command    aigc train --config=vae_digits --workdir=runs/vae_digits
Hardware   2 CPU cores: 11 s from start to finish
Expect     test neg_elbo 23.0 nats, all 10 latents active (measured 2026-11)
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="vae",
            steps="5000 steps",
            batch_size=100,
            data=dict(name="digits"),
            network="mlp",
            model=dict(widths=((200,),), activation="relu"),
            latent_dims=(10,),
            likelihood="bernoulli",
            binarize="dynamic",
            prior="normal",
            objective="elbo",
            num_importance_samples=1,
            penalty="none",
            conditional=False,
            nll_samples=5000,
            optimizer="adam",
            schedule=dict(name="constant", warmup="0 steps"),
            anneal=dict(name="constant", period="0 steps"),
            hp=dict(lr=1e-3, beta1=0.9, beta2=0.999, beta=1.0),
            best_metric="valid/neg_elbo",
            run=dict(eval_every="500 steps", sample_every="1000 steps", save_every="1000 steps"),
        )
    )
