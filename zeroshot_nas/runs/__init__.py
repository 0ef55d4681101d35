"""Folders of runs: their store, writing one, reading them."""
