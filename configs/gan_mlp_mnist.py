"""MLP GAN on MNIST: the smallest networks that draw digits.

Paper      Goodfellow et al. 2014, with the non-saturating loss and Adam; the rates are
           our own. Those of Radford et al. 2016 (2e-4 both, beta1 0.5) end at 15.2
           instead of 5.0 (docs/design/log.md)
Command    aigc train --config=gan_mlp_mnist --workdir=runs/gan_mlp_mnist
Hardware   2 CPU cores: 123 s from start to finish for 100 epochs with 430 sample grids;
           59 s for 20,000 steps (measured 2026-11)
Expect     test frechet_pixels 5.1 after 100 epochs (42,969 steps), 5.0 after 20,000
           steps, with 5,000 samples, measured at seed 0. A classifier trained on real
           digits gives 66 % of 1,000 samples of the latter a confidence above 0.9 (68 %
           of the former), all ten classes present; docs/pictures/gan_mlp_mnist.png
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="gan",
            steps="100 epochs",
            batch_size=128,
            data=dict(name="mnist"),
            network="mlp",
            model=dict(g=dict(widths=(256,)), d=dict(widths=(256,))),
            hp=dict(lr_g=0.002, lr_d=0.001, beta1=0.0, ema_decay=0.9995),
            metrics=("frechet_pixels",),
            num_metric_samples=5000,
            best_metric="valid/frechet_pixels",
            run=dict(eval_every="2000 steps", sample_every="100 steps", save_every="2000 steps"),
        )
    )
