"""What knows nothing of models: errors, files, locks, processes, documents."""
