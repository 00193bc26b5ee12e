"""Shared utilities: files, errors, safe pickles, processes, signals, progress."""
