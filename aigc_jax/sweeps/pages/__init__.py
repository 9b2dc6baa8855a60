"""Reports of runs and sweeps as one HTML file; without jax and without a model."""
