"""What is told of a run while it works, and writers that keep it; a new file here is found by itself."""
