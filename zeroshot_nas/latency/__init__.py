"""Latency on this machine: backends, measuring, and tables that predict it."""
