"""Search spaces: dimensions, building networks, encoding networks."""
