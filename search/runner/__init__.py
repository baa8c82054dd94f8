"""Worker loop, supervisor, cluster."""
