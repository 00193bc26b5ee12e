"""The page in a browser, served by the server that users start: it shows what predict says."""

import pytest
from chromium import asked, chromium, found, texts, visible, wait
from running import running

from stnet.inference.predictor import Predictor

TOKEN = "only-for-this-test"


@pytest.fixture(scope="module")
def page(tmp_path_factory, clip_set, trained):
    """(browser, address) of a server that wants a token; nothing but this machine exists for the browser."""
    folder = tmp_path_factory.mktemp("server")
    with chromium("127.0.0.1") as browser, running(folder, clip_set, trained, f"--token={TOKEN}") as server:
        yield browser, server.url


@pytest.fixture(scope="module")
def predictor(clip_set, trained):
    return Predictor(trained / "STNET_final.pdparams", clip_set / "tiny.yaml", "paddle", "cpu", topk=4)


def opened(page, path):
    """The page by the link that the server prints, with a video."""
    browser, url = page
    browser.get("about:blank")
    asked(browser)
    browser.get(f"{url}#token={TOKEN}")
    found(browser, "#file")[0].send_keys(str(path))
    return browser


def numbers(browser, selector):
    return [float(element.get_property("value")) for element in found(browser, selector)]


def test_bars_and_shares_are_those_of_predict_and_nobody_else_is_asked(page, predictor, videos):
    path = videos / "wide_h264.mp4"
    (expected,) = predictor.predict(path)
    reasons = expected.explain(grid=0)
    browser = opened(page, path)
    wait(browser, lambda: texts(browser, "#classes li"))
    assert texts(browser, "#classes bdi") == expected.label_names
    assert numbers(browser, "#classes data") == pytest.approx(expected.scores, abs=1e-6)
    assert texts(browser, "#classes data") == [f"{score:.2%}" for score in expected.scores]
    assert numbers(browser, "#segments data") == pytest.approx(reasons.classes[0].shares, abs=1e-4)
    assert all(image.get_property("naturalWidth") > 0 for image in found(browser, "#segments img"))
    assert len(found(browser, "#segments img")) == len(reasons.segments)
    assert "90 frames · 340 × 256" in texts(browser, "#facts")[0]
    wait(browser, lambda: browser.execute_script("return document.querySelector('video').currentTime") > 0)
    assert {url.split("/")[2] for url in asked(browser) if url.startswith("http")} == {page[1].split("/")[2]}
    assert browser.get_log("browser") == []


def test_a_timeline_has_the_events_of_predict(page, predictor, videos, tmp_path):
    path = videos / "wide_h264.mp4"
    settings = {"window": 1.0, "stride": 0.5, "threshold": 0.3, "hold": 0.3}
    expected = predictor.timeline(path, tmp_path / "timeline", **settings)
    browser = opened(page, path)
    wait(browser, lambda: visible(browser, "#timeline-start"))
    found(browser, "#timeline-section summary")[0].click()
    for name, value in settings.items():
        field = found(browser, f"[name={name}]")[0]
        field.clear()
        field.send_keys(str(value))
    found(browser, "#timeline-start")[0].click()
    wait(browser, lambda: visible(browser, ".tracks"))
    assert expected
    assert texts(browser, "#timeline td.class") == [predictor.labels[event.class_id] for event in expected]
    assert numbers(browser, "#timeline td data") == pytest.approx([event.probability for event in expected], abs=1e-4)
    assert texts(browser, "#timeline .time") == [f"0:{event.start:05.2f}" for event in expected]


def test_a_text_that_is_called_a_video_gets_its_message(page, tmp_path):
    path = tmp_path / "text.mp4"
    path.write_text("This is no video.\n" * 100)
    browser = opened(page, path)
    wait(browser, lambda: visible(browser, "#classify-progress.problem"))
    (line,) = texts(browser, "#classify-progress p")
    assert line.startswith("The file is no video, or it is damaged: no frame can be decoded")
    assert visible(browser, "#segments-section, #timeline-section") == []


def test_without_the_token_the_page_asks_for_it(page):
    browser, url = page
    browser.get("about:blank")
    browser.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": url.rstrip("/"), "storageTypes": "all"})
    browser.switch_to.new_window("tab")  # what a window remembers is its own
    browser.get(url)
    wait(browser, lambda: visible(browser, "#token-form"))
    found(browser, "#token")[0].send_keys(TOKEN)
    found(browser, "#token-form button")[0].click()
    wait(browser, lambda: "4 classes" in texts(browser, "#about")[0])
    assert visible(browser, "#token-form, #problem") == []
