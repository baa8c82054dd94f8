"""Notes, figures and files for optuna-dashboard, and its server."""
