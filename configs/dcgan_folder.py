"""Convolutional GAN on a directory of pictures, 128x128 in colour: data.path names it.

Paper      after Radford et al. 2016. It follows a widely copied generator that has one
           stage less and so ends at 64x64, under a discriminator for 128x128 that it
           cannot be put before; here the last layer doubles the size once more
Command    aigc train --config=dcgan_folder --workdir=runs/mine \
               --config.data.path=my_pictures
Hardware   about 470 GFLOP a step of 64 pictures: 3.6 s a step, 36 minutes on 2 CPU
           cores; meant for a GPU (--config.steps="100 epochs")
Expect     on 6,000 animals of CIFAR-10 blurred shapes in white, brown and green, no
           animals yet, with a grid of the strides on them
           (docs/pictures/dcgan_folder.png): test diversity 0.64, frechet_pixels 91;
           valid 0.58 and 71 after 400 steps (measured 2026-11). Batch normalization is
           ours: without it nothing is learnt (docs/design/log.md)
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="gan",
            steps="600 steps",
            batch_size=64,
            data=dict(name="folder", size=128),
            network="dcgan",
            model=dict(
                g=dict(base=256, channels=(128, 64, 32), kernel=4, last_stride=2),
                d=dict(channels=(64, 128, 256, 512), kernel=4, activation="leaky_relu_0.01"),
            ),
            metrics=("frechet_pixels", "diversity"),
            num_metric_samples=500,
            best_metric="valid/frechet_pixels",
            run=dict(eval_every="100 steps", sample_every="100 steps", save_every="100 steps"),
        )
    )
