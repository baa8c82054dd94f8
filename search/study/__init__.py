"""A study: its file, its run folder, its records."""
