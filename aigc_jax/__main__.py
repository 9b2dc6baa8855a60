"""The command line: python -m aigc_jax."""

from aigc_jax.cli.main import command

command()
