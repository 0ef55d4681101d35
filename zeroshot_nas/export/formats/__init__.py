"""Export formats; a module of this package registers its own on import."""
