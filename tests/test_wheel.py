"""One import name: the same command and the same public names in a checkout, under `pip install -e` and in a wheel."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from installations import build, checked
from test_floors import FLOORS

PROJECT = Path(__file__).parents[1]
# Names in the user's own folder that are those of folders and entries of a checkout, or were.
OWN = ["models.py", "train.py", "predict.py", "tools/__init__.py", "core/__init__.py"]


@pytest.fixture(scope="module")
def wheel(packed, tmp_path_factory):
    return build("wheel", packed, tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def mine(root):
    """A user's folder, with names in it that are also ours."""
    for name in OWN:
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("raise RuntimeError('this is the user\\'s own')\n", encoding="utf-8")
    return root


def test_a_wheel_has_one_top_level_name_and_no_tests_or_benchmarks(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (top_level,) = [archive.read(name).decode() for name in names if name.endswith("/top_level.txt")]
    assert wheel.name.startswith("stnet_paddle-0.2.0-")
    assert top_level.split() == ["stnet"]
    assert {name.split("/")[0] for name in names} == {"stnet", "stnet_paddle-0.2.0.dist-info"}
    assert {name.split("/")[1] for name in names if name.startswith("stnet/") and name.count("/") > 1} == {
        *FLOORS,
        "configs",
        "data",
    } - {"stnet"}
    assert {
        "stnet/py.typed",
        "stnet/configs/stnet.yaml",
        "stnet/data/dataset/kinetics_labels.json",
        "stnet/report/page.html",
        "stnet/report/page.js",
        "stnet/report/page.css",
        "stnet/serve/page/index.html",
        "stnet/serve/page/page.js",
        "stnet/models/stnet/network.py",
        "stnet/reader/clip.py",
        "stnet/serve_model.py",
        "stnet/tools/dataset/check.py",
        "stnet/train.py",
    } <= set(names)


def test_a_wheel_holds_the_sources_as_they_are(wheel):
    with zipfile.ZipFile(wheel) as archive:
        sources = {name: archive.read(name).decode() for name in archive.namelist() if name.endswith(".py")}
    assert len(sources) > 80
    assert {name: (PROJECT / name).read_text(encoding="utf-8") for name in sources} == sources


def test_a_wheel_of_the_source_distribution_is_the_same(packed, wheel, tmp_path):
    sdist = tmp_path / "sdist"
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(sdist)!r})"
    checked(sys.executable, "-c", code, cwd=packed)
    (archive,) = sdist.glob("*.tar.gz")
    shutil.unpack_archive(archive, tmp_path)
    (unpacked,) = tmp_path.glob("stnet_paddle-*")
    again = build("wheel", unpacked, tmp_path / "wheel")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        names = [name for name in one.namelist() if not name.endswith("/RECORD")]
        assert {name: other.read(name) for name in names if "dist-info" not in name} == {
            name: one.read(name) for name in names if "dist-info" not in name
        }


def test_help_of_the_command_and_of_every_action(installed, mine):
    _, command, variables = installed
    for words in ([], ["--help"]):
        assert "stnet predict " in checked(*command, *words, cwd=mine, env=variables)
    for action in ("train", "eval", "predict", "inference", "serve"):
        text = checked(*command, action, "--help", cwd=mine, env=variables)
        assert text.startswith(f"usage: stnet {action} [-h]")
        assert f"\nstnet {action} --" in text
    assert checked(*command, "data", "check", "--help", cwd=mine, env=variables).startswith("usage: stnet data check")


def test_the_version_and_the_public_names_can_be_asked_for(installed, mine):
    python, command, variables = installed
    assert checked(*command, "--version", cwd=mine, env=variables) == "stnet 0.2.0\n"
    code = "import stnet; print(stnet.__version__, {'Predictor', '__version__', *stnet.__all__} <= {*dir(stnet)})"
    assert checked(python, "-c", code, cwd=mine, env=variables) == "0.2.0 True\n"


@pytest.mark.parametrize("installed", ["wheel"], indirect=True)
def test_advice_in_a_wheel_names_nothing_that_is_not_there(installed, mine):
    python, _, variables = installed
    code = (
        "from stnet.cli import advised; from stnet.utils import errors\n"
        "for name in ('MAKE_LISTS', 'INSTALL_ONNX'): print(advised(errors.UserError(name, getattr(errors, name))))"
    )
    assert checked(python, "-c", code, cwd=mine, env=variables).splitlines() == [
        "MAKE_LISTS; stnet data makes lists, see stnet data --help",
        "INSTALL_ONNX; pip install 'paddle2onnx>=2.1' onnxruntime ml_dtypes",
    ]
    done = subprocess.run(
        [python, "-m", "stnet", "eval", "-o", "TEST.filelist=none.list"],
        cwd=mine, env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1].endswith("; stnet data makes lists, see stnet data --help")


def test_an_unknown_action_is_one_line_with_the_known_ones(installed, mine):
    _, command, variables = installed
    quiet = {"cwd": mine, "env": variables, "capture_output": True, "text": True}
    done = subprocess.run([*map(str, command), "fit"], check=False, **quiet)
    assert done.returncode == 2
    assert done.stderr == "error: unknown action 'fit'; known: train, finetune, eval, predict, inference, serve, data\n"


def test_predict_beside_the_users_own_modules(installed, mine, clip_set, trained):
    _, command, variables = installed
    flags = ["--config", clip_set / "tiny.yaml", "--engine=paddle", "--weights", trained / "STNET_final.pdparams"]
    checked(*command, "predict", *flags, cwd=mine, env=variables)
    results = json.loads((mine / "results" / "predict_results.json").read_text(encoding="utf-8"))["results"]
    assert [result["path"] for result in results] == ["val 0.mp4", "val 1.mp4"]


PROGRAM = """
import sys
from stnet import ENGINES, FORMATS, METRICS, MODELS, Predictor, UserError, load_config
config, weights, *clips = sys.argv[1:]
assert load_config().MODEL.num_classes == 400
assert (MODELS.names(), METRICS.names(), ENGINES.names()[0]) == (["STNET"], ["TOPK"], "auto")
assert FORMATS.names() == ["frames", "mp4", "pkl"]
try:
    Predictor(weights, load_config(), device="cpu")
except UserError as error:  # configuration and labels were found; the checkpoint has 18 layers and 4 classes
    assert "num_classes is 400 in the config and 4 in the weights" in str(error)
predictor = Predictor(weights, load_config(config), engine="paddle", device="cpu", topk=3)
for result in predictor.predict(clips):
    print(result.input_path, *result.label_names, sep="|")
"""


def test_the_public_names_work_in_a_users_program(installed, mine, clip_set, trained):
    python, _, variables = installed
    (mine / "program.py").write_text(PROGRAM, encoding="utf-8")
    clips = [str(clip_set / name) for name in ("val 2.mp4", "val 0.mp4")]
    words = [python, "program.py", clip_set / "tiny.yaml", trained / "STNET_final.pdparams", *clips]
    lines = [line.split("|") for line in checked(*words, cwd=mine, env=variables).splitlines() if "|" in line]
    assert [line[0] for line in lines] == clips
    assert [len(set(line[1:]) & set("abcd")) for line in lines] == [3, 3]


@pytest.mark.parametrize("installed", ["wheel"], indirect=True)
def test_a_users_program_keeps_its_own_modules(installed, mine):
    python, _, variables = installed
    (mine / "models.py").write_text("OWN = True\n", encoding="utf-8")
    code = "import models; from stnet import MODELS, Predictor; print(models.OWN, MODELS.names())"
    assert checked(python, "-c", code, cwd=mine, env=variables) == "True ['STNET']\n"


def test_an_unknown_public_name_names_the_known():
    import stnet

    assert stnet.Predictor is sys.modules["stnet.inference.predictor"].Predictor
    with pytest.raises(AttributeError, match="no attribute 'Trainer'; it has ENGINES, FORMATS, METRICS, MODELS"):
        stnet.Trainer  # noqa: B018
