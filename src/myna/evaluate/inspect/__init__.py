"""A look inside a model: its tensors, positions, weights, attention, predictions on the way, and tokens."""
