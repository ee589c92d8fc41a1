"""What is kept of a run: checkpoints, their copies elsewhere, trackers."""
