"""Linen modules only: they know no loss, optimiser, mesh or config."""
