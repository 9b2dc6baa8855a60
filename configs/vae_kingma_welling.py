"""The VAE of Kingma & Welling 2013 on MNIST: figure 2's likelihood bound.

Paper      Kingma & Welling 2013, section 5: 500 tanh units, minibatches of 100, one
           draw, Adagrad with a step of 0.01, 0.02 or 0.1. Theirs has weights from N(0,
           0.01) with a small decay and grey pixels as they are; here LeCun's
           initialization and pixels drawn anew each step
Command    aigc train --config=vae_kingma_welling --workdir=runs/vae_kingma_welling \
               --config.latent_dims=20
Hardware   2 CPU cores: 6 m 40 s
Expect     test neg_elbo 99.3 nats after 1e7 examples; valid 109.8 after 1e6, 100.2 at
           the end, still falling (measured 2026-11)
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="vae",
            steps="1e7 examples",
            batch_size=100,
            data=dict(name="mnist"),
            network="mlp",
            model=dict(widths=((500,),), activation="tanh"),
            latent_dims=(20,),
            binarize="dynamic",
            optimizer="adagrad",
            hp=dict(lr=0.02),
            run=dict(
                eval_every="1e6 examples", sample_every="1e6 examples", save_every="1e6 examples"
            ),
        )
    )
