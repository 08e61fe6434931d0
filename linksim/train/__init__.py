"""Training of the learned transceivers: data, losses, recipes, checkpoints, the loop."""
