"""What a network costs and the limits it must meet, without building it."""
