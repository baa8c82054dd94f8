"""Commands and terminal output; the only package that imports `report`."""
