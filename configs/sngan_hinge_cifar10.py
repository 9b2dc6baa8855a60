"""SN-GAN on CIFAR-10: residual networks, spectral normalization, hinge loss.

Paper      Miyato et al. 2018: the networks of table 4 (G 256, D 128 channels), 5 critic
           steps, batch 64, Adam 2e-4 with beta1 0 and beta2 0.9 falling linearly to 0
           over 100,000 steps (appendix B.3)
Command    aigc train --config=sngan_hinge_cifar10 --workdir=runs/sngan
           aigc evaluate --workdir=runs/sngan --checkpoint=best \
               --metrics=frechet,kid,prdc --num=10000 --inception=FILE
           (images of your own: --config.data.name=folder --config.data.size=32
           --config.data.path=my_pictures)
Hardware   meant for a GPU: 25 s a step on 2 CPU cores beside other work, on 32x32
           animals through data.name=folder (measured 2026-11)
Expect     not trained as it stands. A quarter as wide (config.model.g.width=64,
           config.model.d.width=32), 300 steps on 32x32 animals (4 minutes on 2 CPU
           cores; measured 2026-11): colours, a ground and something on it, no animal;
           valid frechet_pixels 283, 70, 79 at steps 0, 150, 300. In the paper Inception
           score 8.22, FID 21.7 (5,000 samples against the test split's statistics of
           10,000)
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="gan",
            steps="100000 steps",
            batch_size=64,
            data=dict(name="cifar10"),
            network="resnet",
            model=dict(
                g=dict(width=256, ups=3), d=dict(width=128, downs=2, flats=2, spectral=True)
            ),
            latent_dim=128,
            loss="hinge",
            critic_steps=5,
            schedule=dict(name="linear"),
            hp=dict(beta1=0.0, beta2=0.9),
            metrics=("frechet_pixels", "diversity"),
            num_metric_samples=5000,
            best_metric="valid/frechet_pixels",
            run=dict(eval_every="5000 steps"),
        )
    )
