"""What programs print about videos, read back."""


def shown(text):
    """Video -> {label: probability} of what tools.run_deployed and examples/paddlex_predict.py print, in that order."""
    videos, video = {}, ""
    for line in text.splitlines():
        if line.startswith("    "):
            probability, label = line.split()
            videos[video][label] = float(probability)
        else:
            video = line
            videos[video] = {}
    return videos
