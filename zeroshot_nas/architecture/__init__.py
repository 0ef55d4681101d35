"""Architectures as data: operations, block specifications, the PlainNet text."""
