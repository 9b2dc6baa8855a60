"""Convolutional GAN on Fashion-MNIST: the networks and rates of dcgan_mnist.

Paper      Radford et al. 2016 (rate 2e-4, beta1 0.5, batch 128, batch normalization),
           with 5x5 kernels from 7x7x128 and the dense layers of Chen et al. 2016
Command    aigc train --config=dcgan_fashion --workdir=runs/dcgan_fashion
           (from the generator of digits, twice as fast, as
           experiments/fashion_from_digits.py compares:)
           aigc train --config=dcgan_fashion --workdir=runs/dcgan_fashion \
               --config.init_from=runs/dcgan_mnist \
               --config.init_match="params/g/|extra/ema|extra/stats/g"
Hardware   2 CPU cores: about 1.2 s a step, 25 minutes (measured 2026-11)
Expect     test frechet_pixels 18.5 (valid 528 untrained), measured at seed 0. Shirts,
           trousers, coats, shoes, boots and bags are plain to see, bright ones better
           than dark ones: docs/pictures/dcgan_fashion.png. Samples of the first 250
           steps are saturated: the averaged statistics of the normalization lag behind
           the averaged weights (docs/design/log.md)
"""


def get_config(base):
    config = base("dcgan_mnist")
    config.data.name = "fashion_mnist"
    config.num_metric_samples = 2000
    config.run.eval_every = "100 steps"
    config.steps = "1000 steps"
    return config
