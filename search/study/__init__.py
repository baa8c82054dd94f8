"""A study: its file, its run folder, its records."""

from search.study.run import Opened, open_study

__all__ = ["Opened", "open_study"]
