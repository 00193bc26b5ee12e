"""Every file that later versions read says of which form it is; results of eval and predict: see tests/compat."""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import write_video
from entries import failing

from stnet.inference.predictor import Predictor
from stnet.tools import run_deployed
from stnet.tools.dataset import __main__ as dataset
from stnet.utils.errors import UserError
from stnet.utils.schema import SCHEMA


@pytest.mark.parametrize("name", ["STNET_best", "STNET_epoch0", "STNET_final"])
def test_a_checkpoint_says_of_which_form_it_is(trained, name):
    about = json.loads((trained / f"{name}.json").read_text(encoding="utf-8"))
    assert (next(iter(about)), about["schema"]) == ("schema", SCHEMA)


def test_the_reports_of_the_data_tools_say_of_which_form_they_are(clip_set, tmp_path):
    (tmp_path / "videos" / "a").mkdir(parents=True)
    write_video(tmp_path / "videos" / "a" / "clip.mp4")
    assert dataset.main(["folder", f"--videos={tmp_path}/videos", f"--out={tmp_path}"]) == 0
    assert dataset.main(["check", f"--list={tmp_path}/train.list", f"--config={clip_set}/tiny.yaml"]) == 0
    for name in ("lists_report.json", "report.json"):
        assert json.loads((tmp_path / name).read_text(encoding="utf-8"))["schema"] == SCHEMA


@pytest.mark.parametrize("schema", [SCHEMA + 1, "2", None])
def test_a_checkpoint_of_a_newer_version_is_refused(clip_set, trained, tmp_path, capsys, schema):
    for suffix in ("json", "pdparams", "pdopt"):
        shutil.copy(trained / f"STNET_epoch0.{suffix}", tmp_path)
    about = json.loads((tmp_path / "STNET_epoch0.json").read_text(encoding="utf-8"))
    (tmp_path / "STNET_epoch0.json").write_text(json.dumps({**about, "schema": schema}), encoding="utf-8")
    message = rf"STNET_epoch0.json has schema {schema!r}, this version knows 1 to {SCHEMA}; update the program"
    flags = ["--config", clip_set / "tiny.yaml", "--save_dir", tmp_path]
    failing("eval", message, capsys, *flags, "--engine=paddle", "--weights", tmp_path / "STNET_epoch0.pdparams")
    failing("train", message, capsys, *flags, "--resume", tmp_path / "STNET_epoch0.pdparams")


def test_an_export_of_a_newer_version_is_refused(tmp_path, capsys):
    Path(tmp_path, "deploy.yaml").write_text(f"schema: {SCHEMA + 1}\n", encoding="utf-8")
    message = f"deploy.yaml has schema {SCHEMA + 1}, this version knows 1 to {SCHEMA}"
    with pytest.raises(UserError, match=re.escape(message)):
        Predictor(tmp_path, device="cpu")
    assert run_deployed.main([str(tmp_path), "clip.mp4"]) == 1
    assert capsys.readouterr().err.endswith(message.replace("version", "program") + "; update it\n")


def test_the_program_that_is_copied_out_knows_the_same_forms():
    assert run_deployed.SCHEMA == SCHEMA


@pytest.mark.parametrize("text", ["model: [", "- a list", "\xff", "schema: 1", "sampling: 3"])
def test_a_damaged_deploy_yaml_is_one_line(tmp_path, text, capsys):
    Path(tmp_path, "deploy.yaml").write_bytes(text.encode("latin1"))
    assert run_deployed.main([str(tmp_path), "clip.mp4"]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path}/deploy.yaml is damaged; inference writes it anew\n"
