"""Studies from Python: the same code as the command line, for scripts and notebooks."""
