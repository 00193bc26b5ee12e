"""What knows nothing of video: configuration, flags, files, pickles, processes, progress, signals, the machine."""
