"""Data sets as frozen arrays with fixed splits."""
