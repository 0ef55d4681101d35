"""Readers of file formats below the benchmarks: pickles without code, JSON without trees."""
