"""The Predictor: clips by their paths, plain results in the same order."""

import pytest

from engine.predictor import Predictor


@pytest.fixture(scope="module")
def predictor(trained, clip_set):
    return Predictor(trained / "STNET_final.pdparams", clip_set / "tiny.yaml", engine="paddle", device="cpu")


def test_results_come_in_the_order_of_the_paths_and_an_unreadable_clip_is_left_out(predictor, clip_set, tmp_path):
    (tmp_path / "damaged.mp4").write_bytes(b"no video")
    paths = [clip_set / "val 3.mp4", tmp_path / "damaged.mp4", clip_set / "val 0.mp4"]
    results = list(predictor.predict(paths, topk=4))
    assert [result["path"] for result in results] == [str(paths[0]), str(paths[2])]
    for result in results:
        probabilities = [row["probability"] for row in result["predictions"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1)
        assert sorted((row["class"], row["label"]) for row in result["predictions"]) == list(enumerate("abcd"))
    (alone,) = predictor.predict(str(paths[2]))  # two classes, as MODEL.topk says
    assert len(alone["predictions"]) == 2
    for row, expected in zip(alone["predictions"], results[1]["predictions"]):
        assert row["label"] == expected["label"]
        assert row["probability"] == pytest.approx(expected["probability"], rel=1e-5)


def test_no_paths_give_no_results(predictor):
    assert list(predictor.predict([])) == []
