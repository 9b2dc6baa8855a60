"""PacGAN on a grid of 25 Gaussians: the paper's recipe; config.gan.pack = 1 is its
plain GAN, 2 to 4 its PacGAN2 to 4.

Paper      Lin et al. 2018, section 4.1 and table 1: 100,000 points of which 100 packs a
           step, 400 epochs, G 2-400-400-2 with ReLU and batch normalization, D
           200-200-200 with maxout of 5, Adam 1e-4 with beta1 0.8, 2,500 samples. The
           kernels of N(0, 0.02^2) and that a batch is of packs are from the authors'
           program (whose G has four hidden layers; the paper's two are taken here).
           There both networks are updated at once, here one after the other
Command    aigc train --config=gan_pac_grid --workdir=runs/pac_grid --config.gan.pack=2
Hardware   as configs/gan_pac_ring.py, 6 ms a step on 2 CPU cores beside other work
           (measured 2026-11)
Expect     not trained to its end yet
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="gan",
            steps="400000 steps",
            batch_size=100,
            data=dict(name="grid"),
            network="mlp",
            model=dict(
                g=dict(
                    widths=(400, 400), activation="relu", output="identity", norm="batch", std=0.02
                ),
                d=dict(widths=(200, 200, 200), activation="identity", maxout_pieces=5, std=0.02),
            ),
            latent_dim=2,
            loss="non_saturating",
            gan=dict(pack=1),
            critic_steps=1,
            optimizer="adam",
            schedule=dict(name="constant", warmup="0 steps"),
            hp=dict(lr_g=1e-4, lr_d=1e-4, beta1=0.8, beta2=0.999, ema_decay=0.0),
            metrics=("modes",),
            num_metric_samples=2500,
            run=dict(
                eval_every="20000 steps",
                sample_every="100000 steps",
                save_every="20000 steps",
                log_every="1000 steps",
                samples=2000,
            ),
        )
    )
