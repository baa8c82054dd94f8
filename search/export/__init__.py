"""Export formats; each file is read back and verified."""
