"""Training of one network under one recipe; knows nothing of studies."""
