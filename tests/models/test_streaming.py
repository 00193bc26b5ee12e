"""stnet.models.stnet.streaming: windows in stages against the whole network."""

import numpy as np
import paddle
import pytest

from stnet.models.stnet.depths import DEPTHS
from stnet.models.stnet.network import StNet
from stnet.models.stnet.streaming import StNetStreaming, shares


def network(depth):
    """A small StNet with statistics that differ from channel to channel."""
    paddle.seed(depth)
    net = StNet(depth, 5, 2)
    net.eval()
    for name, value in sorted(net.state_dict().items()):
        if name.endswith(("_mean", "_variance")):
            value.set_value(paddle.uniform(value.shape, min=0.5, max=1.5))
    return net


def video(segments, size=32):
    return np.random.RandomState(3).standard_normal((segments, 6, size, size)).astype("float32")


class Counted:
    """A part of a network, and how many things it was given."""

    def __init__(self, layer):
        self.layer, self.count = layer, 0

    def __call__(self, values):
        self.count += len(values)
        with paddle.no_grad():
            return self.layer(paddle.to_tensor(values)).numpy()


def stream(streaming, runs, segments, windows, at_once=(3, 4, 5, 2)):
    """Features of windows, each a list of numbers of segments; segments are fed in order."""
    scorer = streaming.windows(runs, at_once)
    for number, window in enumerate(windows):
        scorer.add(number, window)
    for number, pixels in enumerate(segments):
        scorer.feed(number, pixels)
    scorer.flush()
    return dict(scorer.done())


def assert_windows_are_the_networks(net, windows, segments, at_once=(3, 4, 5, 2)):
    streaming = StNetStreaming(net)
    runs = [Counted(part) for part in streaming.parts]
    features = stream(streaming, runs, segments, windows, at_once)
    assert sorted(features) == list(range(len(windows)))
    for number, window in enumerate(windows):
        with paddle.no_grad():
            expected = net(paddle.to_tensor(segments[None, window])).numpy()[0]
        np.testing.assert_allclose(streaming.logits(features[number]), expected, rtol=0, atol=1e-4)
        by_segment, rest = streaming.shares(features[number])
        assert by_segment.shape == (len(window), 5)
        np.testing.assert_allclose(by_segment.sum(axis=0) + rest, expected, rtol=0, atol=1e-4)
    return [run.count for run in runs]


def sliding(segments, seg_num, stride):
    return [list(range(start, start + seg_num)) for start in range(0, segments - seg_num + 1, stride)]


@pytest.mark.parametrize("depth", sorted(DEPTHS))
def test_windows_of_every_depth_have_the_whole_networks_logits(depth):
    net = network(depth)
    assert_windows_are_the_networks(net, sliding(11, 7, 1), video(11))


@pytest.mark.parametrize("seg_num", [1, 2, 3, 4, 5, 7, 25])
@pytest.mark.parametrize("stride", [1, 3])
def test_windows_of_any_length_and_stride(seg_num, stride):
    assert_windows_are_the_networks(network(18), sliding(seg_num + 5, seg_num, stride), video(seg_num + 5))


def test_windows_that_do_not_touch():
    assert_windows_are_the_networks(network(18), sliding(16, 5, 8), video(16))


def test_a_segment_of_one_window_only_as_where_its_frames_wrap():
    windows = [[0, 1, 2, 3, 4, 10], [1, 2, 3, 4, 5, 11], [2, 3, 4, 5, 6, 12]]
    assert_windows_are_the_networks(network(18), windows, video(13))


def test_what_windows_share_is_computed_once():
    # A window costs its new segment, the third stage on 2 more of its ends, the fourth on 4 more.
    counts = assert_windows_are_the_networks(network(18), sliding(20, 9, 1), video(20), at_once=(4, 4, 4, 4))
    windows, own = 12, 20
    assert counts == [own, own - 2 + 2 * windows, own - 4 + 4 * windows, windows]


def test_nothing_is_kept_of_what_no_window_waits_for():
    streaming = StNetStreaming(network(18))
    scorer = streaming.windows([Counted(part) for part in streaming.parts], (1, 1, 1, 1))
    segments, held = video(40), []
    for number, pixels in enumerate(segments):
        if number + 7 <= len(segments):
            scorer.add(number, range(number, number + 7))
        scorer.feed(number, pixels)
        list(scorer.done())
        held.append(sum(value.result is not None and value.stage < 2 for value in scorer.known.values()))
    assert max(held) <= 2 * 3  # the neighbours of what comes next, whatever the length of a window
    assert len(scorer.known) == len(scorer.windows) == 0


def test_of_equal_segments_the_first_has_the_share():
    features = np.array([[1.0, 0.0], [1.0, 2.0], [0.5, 2.0]], np.float32)
    weight = np.array([[10.0, -1.0], [100.0, 1.0]], np.float32)
    assert shares(features, weight).tolist() == [[10, -1], [200, 2], [0, 0]]


def test_parts_hold_the_networks_own_weights():
    net = network(18)
    owned = {id(parameter) for parameter in net.parameters()}
    assert all(id(parameter) in owned for part in StNetStreaming(net).parts for parameter in part.parameters())
