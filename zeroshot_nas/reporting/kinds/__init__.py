"""Kinds of runs that have a page; a new one is one new file here."""
