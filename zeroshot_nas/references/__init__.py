"""Hand-made networks to compare with, one family a file; a new file here is found by itself.

ShuffleNetV2 (arXiv:1807.11164) is not among them: no operation of ours splits or permutes channels.
"""
