"""Training of N trials as one program, from a config to finished run directories."""
