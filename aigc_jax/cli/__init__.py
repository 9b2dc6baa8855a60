"""The command line: one module per verb, each with `add_arguments` and `run`.

run(args, overrides) returns the exit code. `args` are the flags that
add_arguments(parser) adds; `overrides` is {KEY: VALUE} of the words --config.KEY=VALUE,
empty for verbs that do not take them.
"""
