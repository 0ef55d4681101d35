"""What every part uses and what knows nothing of networks: names, seeds, files, ranks, scores."""
