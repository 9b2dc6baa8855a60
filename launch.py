#!/usr/bin/env python3
"""The command line of aigc_jax from a checkout: python launch.py --help."""

from aigc_jax.cli.main import command

if __name__ == "__main__":
    command()
