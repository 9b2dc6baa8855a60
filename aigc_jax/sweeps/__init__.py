"""Many trials: lists of overrides, groups as programs, engines, tables and reports."""
