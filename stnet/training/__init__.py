"""Training: the loop, one update, checkpoints to resume from, the log and its page."""
