"""Architecture search for image classifiers under a strict parameter budget; `python -m search VERB ...`."""
