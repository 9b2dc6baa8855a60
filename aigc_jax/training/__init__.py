"""One program of N trials, from a config to a finished run directory."""
