"""Losses, one number per example, in tables: GANs, likelihoods, latents, tokens."""
