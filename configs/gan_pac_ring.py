"""PacGAN on a ring of 8 Gaussians: the paper's recipe; config.gan.pack = 1 is its
plain GAN, 2 to 4 its PacGAN2 to 4.

Paper      Lin et al. 2018, section 4.1 and table 1: 100,000 points of which 100 packs a
           step, 400 epochs, G 2-400-400-2 with ReLU and batch normalization, D
           200-200-200 with maxout of 5, Adam 1e-4 with beta1 0.8, 2,500 samples. The
           kernels of N(0, 0.02^2) and that a batch is of packs are from the authors'
           program (whose G has four hidden layers; the paper's two are taken here).
           There both networks are updated at once, here one after the other
Command    aigc train --config=gan_pac_ring --workdir=runs/pac_ring --config.gan.pack=2
Hardware   2 CPU cores: 36 to 46 minutes for two seeds as one program, packs of 1 to 4
           (measured 2026-11)
Expect     after all 400,000 steps, two seeds of packs of 1, 2, 3, 4: 7.5, 6.0, 5.5, 8.0
           modes, 84, 71, 88, 51 % of high quality, reverse KL 0.31, 0.50, 0.52, 0.17;
           the paper has 6.3, 7.9, 7.8, 7.8 modes, 96 to 98 %, 0.45, 0.07, 0.10, 0.07.
           With four hidden layers, as the authors' program has, packs of 1 and 2 come
           to 95 and 92 %, 0.17 and 0.09 in a quarter of the steps:
           docs/studies/pacgan-ring.md (measured 2026-11)
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="gan",
            steps="400000 steps",
            batch_size=100,
            data=dict(name="ring"),
            network="mlp",
            model=dict(
                g=dict(widths=(400, 400), output="identity", norm="batch", std=0.02),
                d=dict(widths=(200, 200, 200), activation="identity", maxout_pieces=5, std=0.02),
            ),
            latent_dim=2,
            hp=dict(lr_g=0.0001, lr_d=0.0001, beta1=0.8, ema_decay=0.0),
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
