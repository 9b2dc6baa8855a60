"""Inference with a trained run: load, sample, evaluate, generate."""
