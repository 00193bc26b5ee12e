"""The section of a page about the data, rendered in a page of its own."""

import json
import re
from pathlib import Path

import pytest
from jinja2 import ChoiceLoader, DictLoader, Environment, FileSystemLoader, StrictUndefined

from stnet import report
from stnet.metrics.fewshot import Shots
from stnet.metrics.neighbors import Balance, Duplicate, Suspect
from stnet.report.data import data_section

PAGE = '{% extends "page.html" %}{% block sections %}{% include "data.html" %}{% endblock %}'
SHOTS = [
    Shots("nearest mean", 1, 0.5, 0.1, 0),
    Shots("nearest mean", 10, 0.75, 0.05, 1),
    Shots("linear", 1, 0.4, 0.1, 0),
    Shots("linear", 10, 0.8, 0.0, 1),
]


def rendered(section):
    folder = FileSystemLoader(Path(report.__file__).parent)
    loader = ChoiceLoader([DictLoader({"test.html": PAGE}), folder])
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template("test.html")
    return page.render(
        title="t", subtitle="s", totals=[], facts=[], config="", names=["left", "right", "up"], data=section
    )


def tables(page):
    found = re.findall(r'data-table="(\w+)".*?<script type="application/json">(.*?)</script>', page, re.S)
    return {name: json.loads(text)["rows"] for name, text in found}


def test_the_section_shows_what_was_found():
    train, valid = ["a.mp4", "</script>.mp4", "caf\udce9.mp4"], ["v.mp4", "w.mp4"]
    suspects, balance = [Suspect(2, 0, 1, 0.9), Suspect(1, 1, 2, 0.6)], Balance([9, 3, 0], 3.0, [1, 2])
    section = data_section(SHOTS, [Duplicate(1, 0, 0.9991)], suspects, balance, train, valid)
    page = rendered(section)
    assert tables(page) == {
        "shots": [["nearest mean", 1, 0.5, 0.1], ["nearest mean", 10, 0.75, 0.05], ["linear", 1, 0.4, 0.1],
                  ["linear", 10, 0.8, 0.0]],
        "copies": [["w.mp4", "a.mp4", 0.9991]],
        "suspects": [[r"caf\udce9.mp4", 0, 1, 0.9], ["</script>.mp4", 1, 2, 0.6]],
        "balance": [[0, 9], [1, 3], [2, 0]],
    }  # fmt: skip
    assert "<title>linear, clips of each class 10: 0.8</title>" in page
    assert "3 to 9 clips of a class, a ratio of 3.0. Classes of fewer than 5: 2." in page
    assert [line.name for line in section.shots_chart.lines] == ["nearest mean", "linear"]


@pytest.mark.parametrize("counts", [[6, 5], [0, 0]])
def test_a_section_of_which_nothing_was_found_says_so(counts):
    ratio = counts[0] / max(counts[1], 1)
    page = rendered(data_section([], [], [], Balance(counts, ratio, []), [], []))
    assert tables(page) == {"balance": [[0, counts[0]], [1, counts[1]]]}
    assert page.count("None was found.") == 2
    assert "Few clips" not in page
    assert ("No clip has a label." if not any(counts) else "5 to 6 clips of a class, a ratio of 1.2.") in page
