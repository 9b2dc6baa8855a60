"""The command line: one verb a file, each with `add_arguments` and `run`."""
