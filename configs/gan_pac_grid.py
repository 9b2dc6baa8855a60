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


def get_config(base):
    config = base("gan_pac_ring")
    config.data.name = "grid"
    return config
