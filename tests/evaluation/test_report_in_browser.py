"""The pages in a browser: headless Chromium, without a network."""

import re

import numpy as np
import pytest
from chromium import asked, chromium, found
from entries import eval_entry, run
from report_pages import random_evaluation, write

from stnet.evaluation.results import Evaluation
from stnet.training.log import read_journal
from stnet.training.report import write_training_report

HOSTILE = [
    "</script><script>alert(1)</script>",
    "\"quoted\" 'twice' & <b>bold</b>",
    "<!-- <script> {{ 7 * 7 }}",
    "打太极 / 拉小提琴",
    "رقص شرقي",
    "\u202ereversed",
]


@pytest.fixture(scope="module")
def browser():
    """A driver of Chromium, whose names of servers lead nowhere."""
    with chromium() as browser:
        yield browser


def opened(browser, path):
    """The page is open, asked nobody for anything, and its console is empty."""
    asked(browser)
    browser.get(path.as_uri())
    assert [url for url in asked(browser) if not url.startswith("data:image/")] == [path.as_uri()]
    assert browser.get_log("browser") == []
    return browser


def column(browser, table, place):
    """Texts of a column of a table."""
    return browser.execute_script(
        "return [...document.querySelectorAll(`[data-table=${arguments[0]}] tbody tr`)]"
        ".map(row => row.cells[arguments[1]].textContent)",
        table,
        place,
    )


def key(text):
    """What a cell is sorted by: numbers as numbers, and so within names."""
    if re.fullmatch(r"[\d.,]+%?", text):
        return [float(text.replace(",", "").rstrip("%"))]
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text.lower())]


def check_sorting(browser):
    """Every column of every table sorts, both ways, and what is not known stays last. Returns the number of columns."""
    columns = 0
    for box in found(browser, "[data-table]"):
        table = box.get_attribute("data-table")
        for place, head in enumerate(box.find_elements("css selector", "th")):
            columns += 1
            for direction in ("ascending", "descending"):
                head.find_element("css selector", "button").click()
                assert head.get_attribute("aria-sort") == direction
                assert len(box.find_elements("css selector", "th:not([aria-sort=none])")) == 1
                texts = column(browser, table, place)
                known = [text for text in texts if text != "–"]
                assert texts == known + ["–"] * (len(texts) - len(known)), (table, place)
                assert known == sorted(known, key=key, reverse=direction == "descending"), (table, place)
    return columns


@pytest.fixture(scope="module")
def evaluated(clip_set, trained, tmp_path_factory):
    """Folder of the files that eval writes."""
    folder = tmp_path_factory.mktemp("results")
    flags = [f"--weights={trained / 'STNET_final.pdparams'}", "--engine=paddle", f"--save_dir={folder}"]
    assert run(eval_entry, "--config", clip_set / "tiny.yaml", *flags) == 0
    return folder


def test_the_report_of_eval_asks_nobody_and_sorts(browser, evaluated):
    opened(browser, evaluated / "report.html")
    assert check_sorting(browser) >= 20
    assert sorted(column(browser, "clips", 0)) == [f"val {i}.mp4" for i in range(6)]
    strips = found(browser, ".strips img")
    assert len(strips) == 6
    assert all(image.get_property("naturalWidth") >= 3 * 56 for image in strips)  # 3 segments


def test_the_report_of_train_asks_nobody_and_sorts(browser, trained):
    opened(browser, trained / "training.html")
    titles = [chart.get_attribute("aria-label") for chart in found(browser, "figure.chart svg")]
    curves = ["Loss", "Accuracy", "Learning rate", "Clips per second", "Waiting for data, share of time"]
    assert titles[:6] == [*curves, "Accuracy per class"]
    assert len(found(browser, "path.line")) == 2 + 4 + 3  # loss, top-1 and top-5 of both, rate, speed, waiting
    assert check_sorting(browser) >= 20


def test_numbers_sort_as_numbers(browser, tmp_path, tiny_config):
    opened(browser, write(tmp_path / "report.html", random_evaluation(12, 3000), tiny_config))
    assert {len(text) for text in column(browser, "classes", 1)} == {2, 3, len("1,234")}
    assert check_sorting(browser) >= 20


def test_a_report_of_many_classes_and_clips_is_small_and_quick(browser, tmp_path, tiny_config):
    path = write(tmp_path / "report.html", random_evaluation(400, 20_000), tiny_config)
    assert path.stat().st_size < 5_000_000
    opened(browser, path)
    pager = found(browser, "[data-table=clips] output")[0]
    assert pager.text == "1–25 of 20,000"
    found(browser, "[data-table=clips] th button")[0].click()
    numbers = [int(text[-10:-4]) for text in column(browser, "clips", 0) if text.startswith("/data/clips/class 0/")]
    assert len(numbers) == 25
    assert numbers == sorted(numbers)
    found(browser, "[data-table=clips] [data-turn='1']")[0].click()
    assert pager.text == "26–50 of 20,000"
    image = found(browser, "figure.matrix img")[0]
    assert image.get_property("naturalWidth") == 400


def test_clips_without_a_prediction_are_in_no_cell_under_the_pointer(browser, tmp_path, tiny_config):
    labels = np.array([1, 1, 1, 0])
    logits = np.eye(31, dtype=np.float32)[[0, 5, 5, 0]]
    logits[1:3] = np.nan
    evaluation = Evaluation(list("abcd"), labels, logits, [f"class {i}" for i in range(31)], [])
    opened(browser, write(tmp_path / "report.html", evaluation, tiny_config))
    text = browser.execute_script(
        "const image = document.querySelector('figure.matrix img');"
        "const { left, top, width, height } = image.getBoundingClientRect();"
        "const place = { clientX: left + width * 0.5 / 31, clientY: top + height * 1.5 / 31 };"
        "image.dispatchEvent(new PointerEvent('pointermove', place));"
        "return image.parentElement.querySelector('output').textContent"
    )
    assert text == "class 1 → class 0: 1 clips"


def test_search_and_wrong_only_choose_clips(browser, tmp_path, tiny_config):
    evaluation = random_evaluation(12, 60)
    opened(browser, write(tmp_path / "report.html", evaluation, tiny_config))
    wrong = int((evaluation.predictions != evaluation.labels).sum())
    pager = found(browser, "[data-table=clips] output")[0]
    found(browser, "[data-table=clips] [type=checkbox]")[0].click()
    assert pager.text == f"1–25 of {wrong}"
    assert all(a != b for a, b in zip(column(browser, "clips", 1), column(browser, "clips", 2)))
    found(browser, "[data-table=clips] [type=checkbox]")[0].click()
    search = found(browser, "[data-table=clips] [type=search]")[0]
    search.send_keys("CLIP 00004")
    assert sorted(text[-10:] for text in column(browser, "clips", 0)) == [f"{i:06d}.mp4" for i in range(40, 50)]
    search.send_keys(" no such")
    assert (pager.text, column(browser, "clips", 0)) == ("none", [])


def test_a_table_sorts_by_keyboard(browser, tmp_path, tiny_config):
    from selenium.webdriver.common.keys import Keys

    opened(browser, write(tmp_path / "report.html", random_evaluation(12, 60), tiny_config))
    search = found(browser, "[data-table=clips] [type=search]")[0]
    search.send_keys(Keys.TAB)
    browser.switch_to.active_element.send_keys(Keys.TAB)  # from "wrong only", over the button that is off, to the next
    browser.switch_to.active_element.send_keys(Keys.TAB)
    while browser.switch_to.active_element.text != "Probability":
        browser.switch_to.active_element.send_keys(Keys.TAB)
    heads = found(browser, "[data-table=clips] th")
    for pressed, direction in ((Keys.ENTER, "ascending"), (Keys.SPACE, "descending")):
        browser.switch_to.active_element.send_keys(pressed)
        assert heads[3].get_attribute("aria-sort") == direction
        numbers = [float(text) for text in column(browser, "clips", 3)]
        assert numbers == sorted(numbers, reverse=direction == "descending")


def test_hostile_names_are_text(browser, tmp_path, tiny_config):
    paths = [f"{name}/{i}.mp4" for i, name in enumerate(HOSTILE * 4)]
    evaluation = random_evaluation(len(HOSTILE), len(paths), HOSTILE, paths)
    report, training = write(tmp_path / "report.html", evaluation, tiny_config), tmp_path / "training.html"
    rows = [{"kind": "valid", "step": 1, "loss": 1, HOSTILE[0]: 0.5}]
    write_training_report(training, rows, evaluation, [(HOSTILE[1], HOSTILE[0])], tiny_config)
    for path in (report, training):
        opened(browser, path)  # an alert would make the next call fail
        assert column(browser, "classes", 0) == HOSTILE
        assert sorted(column(browser, "clips", 0)) == sorted(paths)
        matrix = browser.execute_script(
            "return [...document.querySelectorAll('table.matrix th')].map(head => head.textContent)"
        )
        assert matrix == HOSTILE * 2
        assert found(browser, "b") == []


@pytest.mark.parametrize("lines", ["", '{"kind": "train", "step": 1}\n', "ODD"])
def test_training_pages_of_odd_journals_come(browser, tmp_path, tiny_config, lines):
    log = tmp_path / "train_log.jsonl"
    odd = [
        '{"kind": "train", "step": 3, "loss": NaN, "lr": "fast", "top1": true, "data_wait": null}',
        f'{{"kind": "train", "step": 2, "loss": 1{"0" * 400}, "lr": -Infinity, "clips_per_s": [1]}}',
        f'{{"kind": "valid", "step": -{"9" * 400}, "loss": 1.5}}',
        '{"kind": "<b>", "step": 1, "loss": 1}',
        '{"kind": "valid", "step": 5, "loss": 1.5, "<b>": 2, "top1": -3}',
        '{"kind": "train", "step": 4, "loss": 1e29, "clips_per_s": 0}',
        "no JSON",
    ]
    log.write_text("\n".join(odd) if lines == "ODD" else lines)
    path = tmp_path / "training.html"
    write_training_report(path, read_journal(log), None, [], tiny_config)
    opened(browser, path)
    assert found(browser, "h1")[0].text == "StNet training"
    assert found(browser, "b") == []
