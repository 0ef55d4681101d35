"""Scores that follow from the graph of an architecture alone: nothing is built, drawn or run."""
