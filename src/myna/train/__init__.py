"""Batches and a model to a trained model: the recipe, the step, the loop."""
