"""Token ids to shards on disk to batches in memory."""
