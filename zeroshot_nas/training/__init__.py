"""Training of the network that a search chose: data sets, augmentation, recipe, trainer, checkpoints."""
