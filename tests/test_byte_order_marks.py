"""A byte order mark, as Windows programs write it before UTF-8, changes nothing in any text file that is read."""

import codecs
import json

import pytest
from conftest import tiny_settings, write_config

from stnet.config import load_config
from stnet.inference.result import Result
from stnet.inference.table import ResultTable
from stnet.models import model_section
from stnet.tools.dataset import kinetics, lists
from stnet.training.log import read_journal
from stnet.weights.formats import verify
from stnet.weights.labels import load_labels
from stnet.weights.metadata import saved_config, saved_labels


def marked(path, text):
    path.write_bytes(codecs.BOM_UTF8 + text.encode())
    return str(path)


@pytest.mark.parametrize("names", [["跑步", "run"], {"run": 1, "跑步": 0}])
def test_labels(tmp_path, names):
    path = marked(tmp_path / "labels.json", json.dumps(names, ensure_ascii=False))
    assert load_labels(path, 2) == load_labels(path, None) == ["跑步", "run"]


def test_configuration(tmp_path):
    text = write_config(tmp_path / "tiny.yaml", tiny_settings(tmp_path)).read_text()
    assert load_config(marked(tmp_path / "marked.yaml", text), model_section).MODEL.num_classes == 4


def test_descriptions_of_weights(tmp_path):
    marked(tmp_path / "x.json", json.dumps({"model": {"name": "STNET"}, "labels": ["a"]}))
    assert saved_config(tmp_path / "x.pdparams")["MODEL"] == {"name": "STNET"}
    assert saved_labels(tmp_path / "x.pdparams") == ["a"]


def test_records_of_digests(tmp_path):
    marked(tmp_path / "x.pdparams.sha256", f"{'a' * 64}  x.pdparams\n")
    assert verify(str(tmp_path / "x.pdparams"), {"": "a" * 64}) == {"x.pdparams"}


def test_logs_and_official_files(tmp_path):
    assert read_journal(marked(tmp_path / "log.jsonl", '{"kind": "train", "step": 1}\n'))[0]["step"] == 1
    assert lists.text_lines(marked(tmp_path / "classInd.txt", "1 A\n"))[0][1] == "1 A"
    rows, _ = kinetics.read_rows(
        [marked(tmp_path / "k.csv", "label,youtube_id,time_start,time_end,split\na,b,0,1,val\n")]
    )
    assert rows == [kinetics.Row("val", "a", "b", 0, 1)]


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
def test_tables_of_predictions_that_go_on(tmp_path, name):
    path, inputs = tmp_path / name, [("a.mp4", None, "a.mp4"), ("b.mp4", None, "b.mp4")]
    table = ResultTable(str(path), inputs, {}, 1, resume=False, overwrite=False)
    table.add(Result("a.mp4", [0], [0.5], ["run"]))
    table.close()
    whole = codecs.BOM_UTF8 + path.read_bytes()
    path.write_bytes(whole + b"half")
    table = ResultTable(str(path), inputs, {}, 1, resume=True, overwrite=False)
    table.close()
    assert (table.done, path.read_bytes()) == (1, whole)
