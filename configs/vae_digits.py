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
            model=dict(widths=((200,),)),
            latent_dims=(10,),
            binarize="dynamic",
            run=dict(eval_every="500 steps"),
        )
    )
