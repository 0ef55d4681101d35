"""Trained networks made narrower, channel by channel, until they are within a budget."""
