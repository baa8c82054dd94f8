"""Reports of a study: Markdown, HTML, optuna-dashboard, submission folder; figures and rows for notebooks."""
