"""Training of one network under one recipe, without any notion of studies."""
