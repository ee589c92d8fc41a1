"""A model and a prompt -> more text."""
