"""A trained run as an object: load, sample, evaluate, generate."""
