"""The folder to hand in: an executed notebook, reports, models."""
