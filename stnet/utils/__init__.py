"""What knows nothing of video: files, errors, safe pickles, processes, signals, progress."""
