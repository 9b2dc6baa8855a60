"""Stacked MNIST: three digits as colours, 1,000 modes to cover or to lose.

Paper      the data and the metrics are those of Che et al. 2017, Srivastava et al. 2017
           and Lin et al. 2018, section 4.2; the networks are small convolutional ones
           of Radford et al. 2016, with the rates and the batch of Lin et al.;
           config.gan.pack = 2 is PacDCGAN2
Command    aigc train --config=gan_stacked_mnist --workdir=runs/stacked \
               --config.gan.pack=2
           aigc evaluate --workdir=runs/stacked --metrics=stacked_modes --num=26000
Hardware   2 CPU cores: 0.06 s a step, 5 minutes (measured 2026-11)
Expect     of 26,000 samples 987 of 1,000 triples, divergence 0.38 (seed 0; measured
           2026-11; docs/pictures/gan_stacked_mnist.png), and rising to the end: 680,
           866, 850, 871, 933, 959 of 10,000 valid samples every 500 steps. In Lin et
           al. DCGAN has 78.9 and 4.50, PacDCGAN2 1,000 and 0.06, with other networks.
           Half as wide, without batch normalization in the discriminator, after 1,500
           steps 686, and 808 with packs of 3 (experiments/mode_collapse.py)
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="gan",
            steps="3000 steps",
            batch_size=64,
            data=dict(name="stacked_mnist"),
            network="dcgan",
            model=dict(g=dict(width=32), d=dict(width=32)),
            hp=dict(ema_decay=0.0),
            metrics=("stacked_modes",),
            num_metric_samples=10000,
            best_metric="valid/stacked_kl",
            run=dict(eval_every="500 steps", sample_every="500 steps", save_every="500 steps"),
        )
    )
