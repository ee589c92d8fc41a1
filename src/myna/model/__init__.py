"""Batches to logits to checkpoints: the GPT-2 network, its loss, its files."""
