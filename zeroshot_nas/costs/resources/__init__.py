"""Costs, one file each; a module of this package registers its cost on import."""
