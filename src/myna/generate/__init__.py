"""A model and a prompt to new text."""
