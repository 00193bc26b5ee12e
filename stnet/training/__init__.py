"""Training: the loop, one update, resuming, the log and its page."""
