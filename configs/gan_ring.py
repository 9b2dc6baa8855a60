"""MLP GAN on a ring of 8 Gaussians: mode collapse and recovery in a minute.

Paper      the data and the metrics are those of PacGAN (Lin et al. 2018, section 4.1);
           networks and rates are our own, smaller
Command    aigc train --config=gan_ring --workdir=runs/gan_ring
Hardware   2 CPU cores: 27 s from start to finish, 1,260 steps/s (measured 2026-11)
Expect     at seed 0 all 8 modes touched and 92 % of samples of high quality, but
           reverse KL 0.37: two thirds of the mass sit on five modes; the best
           checkpoint (step 6,000) spreads evenly, reverse KL 0.007, but is blurred.
           Measured; no remedy is on.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="gan",
            steps="20000 steps",
            batch_size=256,
            data=dict(name="ring"),
            network="mlp",
            model=dict(g=dict(widths=(128, 128), output="identity"), d=dict(widths=(128, 128))),
            latent_dim=16,
            hp=dict(lr_g=0.001, lr_d=0.001, ema_decay=0.99),
            metrics=("modes",),
            num_metric_samples=2500,  # as in PacGAN
            best_metric="valid/reverse_kl",
            run=dict(
                eval_every="2000 steps",
                sample_every="2000 steps",
                save_every="5000 steps",
                samples=2000,
            ),
        )
    )
