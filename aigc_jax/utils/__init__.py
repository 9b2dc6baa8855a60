"""Utilities independent of models: errors, files, locks, processes, documents."""
