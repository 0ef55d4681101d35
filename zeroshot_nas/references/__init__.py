"""Hand-made networks to compare with, one family a file; a new file here is found by itself."""
