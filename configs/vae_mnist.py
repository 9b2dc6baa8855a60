"""VAE on binarized MNIST: the setting of Flax's example.

Paper      Kingma & Welling 2013, as in Flax's example: 784-500-20-500-784, ReLU, batch
           128, Adam 1e-3, 10 epochs of Larochelle's fixed black and white pictures
           (50,000 for training; nothing but the test row is on the test split)
Command    aigc train --config=vae_mnist --workdir=runs/vae_mnist
Hardware   2 CPU cores: 20 s of training, 24 s from start to finish; five seeds as one
           program (experiments/vae_mnist.py) in 1 m 57 s
Expect     test neg_elbo 103.35 in the mean of five seeds, 103.26 to 103.47:
           experiments/results/vae_mnist (measured 2026-11)
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="vae",
            steps="10 epochs",
            batch_size=128,
            data=dict(name="binarized_mnist"),
            network="mlp",
            model=dict(widths=((500,),)),
            latent_dims=(20,),
            run=dict(eval_every="1 epoch", sample_every="1 epoch", save_every="1 epoch"),
        )
    )
