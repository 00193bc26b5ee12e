"""Which frames of a clip the network sees. Pure functions; the original's arithmetic, draw for draw."""


def sample_frames(num_frames, seg_num, seglen, format="mp4", rng=None):
    """Indices of the frames: seg_num segments of seglen consecutive frames.

    Args:
        num_frames: decodable frames, at least 1.
        seg_num, seglen: segments, and frames in each.
        format: "mp4" or "pkl"; the original centres the two differently.
        rng: random.Random for training (one randint per segment); None takes the centre.

    Returns:
        list of seg_num lists of seglen indices. A clip shorter than seg_num * seglen overlaps or wraps around.
    """
    average = num_frames // seg_num
    segments = []
    for i in range(seg_num):
        if average >= seglen:
            if rng is not None:
                offset = rng.randint(0, average - seglen)
            else:
                offset = (average - 1) // 2 if format == "mp4" else (average - seglen) // 2
            start = i * average + offset
        else:
            start = i * average if average >= 1 else i
        segments.append([(start + k) % num_frames for k in range(seglen)])
    return segments
