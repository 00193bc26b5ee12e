"""A server that a reverse proxy publishes below a path prefix, whether the proxy removes the prefix or keeps it."""

import re

import pytest
from running import httpx, running


@pytest.fixture(scope="module")
def server(tmp_path_factory, clip_set, trained):
    with running(tmp_path_factory.mktemp("server"), clip_set, trained, "--root_path=/videos/stnet/") as up:
        assert up.url == f"http://127.0.0.1:{up.port}/videos/stnet/"  # which it answers, too
        up.url = up.url.replace("videos/stnet/", "")
        yield up


@pytest.mark.parametrize("prefix", ["", "videos/stnet/"])
def test_every_path_answers_with_and_without_the_prefix(server, clip_set, prefix):
    for path in ("", "health", "api/info", "docs", "docs/swagger-ui.css", "static/page.css", "metrics"):
        assert server.ask("GET", prefix + path).status_code == 200, path
    content = (clip_set / "val 0.mp4").read_bytes()
    answer = httpx.post(f"{server.url}{prefix}api/classify", files={"file": content}, timeout=30)
    assert len(answer.json()["categories"]) == 2
    wrong = server.ask("POST", f"{prefix}video-classification", json={})
    assert wrong.json()["errorCode"] == wrong.status_code == 422


def test_openapi_names_the_prefix_and_the_page_no_absolute_path(server):
    assert server.ask("GET", "openapi.json").json()["servers"] == [{"url": "/videos/stnet"}]
    page = server.ask("GET", "videos/stnet/").text
    assert re.findall('(?:src|href)="(?:/|http)', page) == []
    without_slash = server.ask("GET", "videos/stnet")
    assert (without_slash.status_code, without_slash.headers["location"]) == (307, "/videos/stnet/")


def test_requests_are_counted_by_the_path_without_the_prefix(server):
    server.ask("GET", "videos/stnet/api/info")
    assert 'path="/api/info"' in server.ask("GET", "metrics").text
    assert "/videos" not in server.ask("GET", "metrics").text
