"""VQ-VAE on MNIST: 7x7 codes a picture.

Paper      van den Oord et al. 2017, with the codebook by moving averages (appendix A.1)
Command    aigc train --config=vqvae_mnist --workdir=runs/vqvae_mnist
Hardware   2 CPU cores: 5 minutes beside another job
Expect     test perplexity 95 of 128 codes, squared error 0.0147 a pixel in [-1, 1]:
           docs/studies/vae.md (measured 2026-11)
"""


def get_config(base):
    config = base("vqvae_digits")
    config.batch_size = 128
    config.codebook_size = 128
    config.data.name = "mnist"
    config.model.channels = (32, 64)
    config.model.residual = 2
    config.model.size = 16
    return config
