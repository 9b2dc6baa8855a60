"""Losses per example, in tables: GANs, likelihoods, latents and tokens."""
