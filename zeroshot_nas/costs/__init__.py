"""What a network costs, and limits on it."""
