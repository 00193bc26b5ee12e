"""Long videos: windows, their scores, events, and the files of both."""
