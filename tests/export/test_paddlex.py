"""inference --format=paddlex: the layout that PaddleX takes, and PaddleX itself."""

import json

import numpy as np
import paddle
import pytest
import yaml
from conftest import tiny_settings, write_config
from entries import inference_model, run
from installations import PROJECT, checked, environment_of
from reports import shown

from stnet.backends import program as exporting
from stnet.inference.predictor import Predictor
from stnet.reader.sampling import sample_frames
from stnet.tools import run_deployed

SIZES = {256: 224, 128: 112}  # short_size: target_size


@pytest.fixture(scope="module")
def flags(clip_set, trained, tmp_path_factory):
    def flags_for(short_size):
        settings = tiny_settings(clip_set)
        settings["MODEL"]["topk"] = 4
        settings["INFER"].update(short_size=short_size, target_size=SIZES[short_size])
        config = write_config(tmp_path_factory.mktemp("config") / "config.yaml", settings)
        return ["--config", config, "--use_gpu=False", "--weights", trained / "STNET_final.pdparams"]

    return flags_for


@pytest.fixture(scope="module")
def folder(flags, tmp_path_factory):
    """An export for PaddleX, at short_size 256."""
    made = tmp_path_factory.mktemp("paddlex")
    if paddle.__version__.startswith("2."):
        pytest.skip("Paddle 2 does not write inference.json")
    assert run(inference_model, *flags(256), "--format=paddlex", "--save_dir", made) == 0
    return made


def test_the_folder_holds_what_paddlex_looks_for(folder):
    files = ["deploy.yaml", "inference.json", "inference.pdiparams", "inference.yml"]
    assert sorted(path.name for path in folder.iterdir()) == files
    assert yaml.safe_load((folder / "inference.yml").read_text(encoding="utf-8")) == {
        "Global": {"model_name": "STNET"},
        "PreProcess": {
            "transform_ops": [
                {"ReadVideo": {"num_seg": 2, "seg_len": 2, "sample_type": "uniform"}},
                {"Scale": {"short_size": 256}},
                {"CenterCrop": {"target_size": 224}},
                {"Image2Array": {"data_format": "tchw"}},
                {"NormalizeVideo": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}},
            ]
        },
        "PostProcess": {"Topk": {"topk": 4, "label_list": ["a", "b", "c", "d"]}},
    }
    about = yaml.safe_load((folder / "deploy.yaml").read_text(encoding="utf-8"))
    assert about["model"]["files"] == files[1:]
    assert (about["input"]["shape"], about["output"]["kind"]) == (["batch", 4, 3, 224, 224], "logits")


def test_the_softmax_of_its_logits_is_what_predict_gives(folder, flags, trained, videos, capsys):
    predictor = Predictor(trained / "STNET_final.pdparams", str(flags(256)[1]), engine="paddle", device="cpu", topk=4)
    path = videos / "mpeg4.avi"
    (expected,) = predictor.predict(path)
    (result,) = Predictor(folder, device="cpu", topk=4).predict(path)
    assert result.class_ids == expected.class_ids
    assert result.scores == pytest.approx(expected.scores, abs=1e-5)
    capsys.readouterr()
    assert run_deployed.main([str(folder), str(path)]) == 0
    (probabilities,) = shown(capsys.readouterr().out).values()
    assert list(probabilities) == expected.label_names
    assert list(probabilities.values()) == pytest.approx(expected.scores, abs=1e-5)
    random = np.random.RandomState(0).standard_normal((2, 4, 3, 224, 224)).astype("float32")
    with paddle.no_grad():
        logits = paddle.jit.load(str(folder / "inference"))(paddle.to_tensor(random))
        network = predictor.model.network(paddle.to_tensor(random.reshape(2, 2, 6, 224, 224)))
    assert np.abs(logits.numpy() - network.numpy()).max() < 1e-4


def test_bytes_are_refused_as_paddlex_normalises(flags, tmp_path, capsys):
    assert run(inference_model, *flags(256), "--format=paddlex", "--uint8", "--save_dir", tmp_path / "out") == 1
    message = "error: PaddleX normalises by itself: its format cannot take uint8; leave out --uint8\n"
    assert capsys.readouterr().err.endswith(message)
    assert not (tmp_path / "out").exists()


def test_a_paddle_that_cannot_write_the_program_says_so_in_one_line(flags, tmp_path, capsys, monkeypatch):
    save = paddle.jit.save

    def save_as_paddle_2(layer, prefix, **options):
        with exporting._program_format():
            save(layer, prefix, **options)

    monkeypatch.setattr(paddle.jit, "save", save_as_paddle_2)
    assert run(inference_model, *flags(256), "--format=paddlex", "--save_dir", tmp_path) == 1
    assert capsys.readouterr().err.endswith(f"Paddle {paddle.__version__} writes no inference.json: Paddle 3 does\n")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def with_paddlex(tmp_path_factory):
    """A Python that has PaddleX."""
    folder = tmp_path_factory.mktemp("with") / "environment"
    return environment_of(folder, f"paddlepaddle=={paddle.__version__}", "paddlex[video]==3.7.2")


@pytest.mark.long
def test_paddlex_gives_the_classes_and_scores_of_predict(with_paddlex, folder, flags, trained, videos):
    paths = [str(path) for path in sorted(videos.iterdir()) if path.suffix != ".pkl"]
    found = shown(checked(with_paddlex, PROJECT / "examples" / "paddlex_predict.py", folder, *paths))
    weights = trained / "STNET_final.pdparams"
    predictor = Predictor(weights, str(flags(256)[1]), engine="paddle", device="cpu", topk=4)
    for path, expected in zip(paths, predictor.predict(paths)):
        as_it_is = path.endswith("wide_h264.mp4")  # PaddleX gives five decimals; it scales the others by cv2.resize
        assert list(found[path]) == expected.label_names
        assert list(found[path].values()) == pytest.approx(expected.scores, abs=1e-5 if as_it_is else 2e-2)


SAMPLED = """
import json
from paddlex.inference.utils.io.readers import DecordVideoReaderBackend

class Asked(Exception):
    pass

class Video:
    def get_batch(self, numbers):
        raise Asked(numbers)

rows = []
for seg_num, seglen in ((25, 5), (7, 5), (3, 1), (1, 16)):
    reader = DecordVideoReaderBackend(num_seg=seg_num, seg_len=seglen, sample_type="uniform")
    for count in range(1, 500):
        try:
            reader.sample(count, Video())
        except Asked as asked:
            rows.append([count, seg_num, seglen, asked.args[0]])
print(json.dumps(rows))
"""


@pytest.mark.long
def test_paddlex_samples_the_same_frames_whatever_the_length(with_paddlex):
    rows = json.loads(checked(with_paddlex, "-c", SAMPLED))
    assert len(rows) == 4 * 499
    for count, seg_num, seglen, numbers in rows:
        assert numbers == sum(sample_frames(count, seg_num, seglen), [])
