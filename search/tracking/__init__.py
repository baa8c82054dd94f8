"""Copies of the progress of trials for experiment trackers: TensorBoard and MLflow, each an optional extra."""
