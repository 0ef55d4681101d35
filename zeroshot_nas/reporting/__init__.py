"""A page of every run: one self-contained HTML file, for people to read."""
