"""Sweeps: overrides, groups of trials as programs, engines, tables and reports."""
