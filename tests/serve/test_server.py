"""The server that users start: its answers are predict's, and it ends in order."""

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import write_video
from running import PATIENCE, PROJECT, answer_of, head, httpx, running, soon, started

from stnet import flags
from stnet.inference.predictor import Predictor
from stnet.serve.limits import Limits


@pytest.fixture(scope="module")
def server(tmp_path_factory, clip_set, trained):
    with running(tmp_path_factory.mktemp("server"), clip_set, trained) as up:
        yield up


@pytest.fixture(scope="module")
def expected(clip_set, trained):
    """{clip: [(class, name, score), ...]} by predict."""
    predictor = Predictor(trained / "STNET_final.pdparams", clip_set / "tiny.yaml", "paddle", "cpu", topk=4)
    clips = [clip_set / f"val {number}.mp4" for number in range(3)]
    results = predictor.predict(clips)
    return {path: list(zip(r.class_ids, r.label_names, r.scores)) for path, r in zip(clips, results)}


def rows(categories):
    return [(row["id"], row["name"], pytest.approx(row["score"], abs=1e-6)) for row in categories]


def test_classes_are_those_of_predict_whichever_way_the_video_comes(server, expected):
    for path, right in expected.items():
        content = path.read_bytes()
        form = server.classify(content, params={"topk": 4})
        body = server.ask("POST", "api/classify?topk=4", content=content, headers={"Content-Type": "video/mp4"})
        sent = {"video": base64.b64encode(content).decode(), "topk": 4}
        paddlex = server.ask("POST", "video-classification", json=sent).json()
        lines = server.classify(content, params={"topk": 4}, headers={"Accept": "application/x-ndjson"})
        steps = [json.loads(line) for line in lines.text.splitlines()]
        assert lines.headers["content-type"] == "application/x-ndjson"
        assert [step["state"] for step in steps[:-1]] == ["queued", "decoding", "computing"]
        for answer in (form.json(), body.json(), paddlex["result"], steps[-1]["result"]):
            assert right == rows(answer["categories"])
        assert (paddlex["errorCode"], paddlex["errorMsg"], set(paddlex)) == (
            0, "Success", {"logId", "result", "errorCode", "errorMsg"},
        )  # fmt: skip
    assert server.is_empty_soon()


def test_an_answer_has_frames_shares_and_facts_of_the_video(server, clip_set):
    asked = {"frames": "true", "shares": "true"}
    answer = server.classify((clip_set / "val 0.mp4").read_bytes(), params=asked).json()
    assert (answer["video"]["frames"], answer["video"]["width"], answer["video"]["height"]) == (12, 40, 30)
    assert [len(segment["frames"]) for segment in answer["segments"]] == [2, 2]
    assert all(segment["image"].startswith("data:image/jpeg;base64,") for segment in answer["segments"])
    assert [len(row["shares"]) for row in answer["shares"]] == [2, 2]
    assert len(answer["categories"]) == 2


def test_a_timeline_comes_in_lines(server, clip_set):
    content = (clip_set / "val 0.mp4").read_bytes()
    asked = {"window": 0.5, "stride": 0.25, "threshold": 0.3, "hold": 0.1}
    answer = server.ask("POST", "api/timeline", params=asked, files={"file": content})
    steps = [json.loads(line) for line in answer.text.splitlines()]
    assert {step.get("state") for step in steps[:-1]} == {"queued", "decoding", "computing"}
    windows = steps[-1]["result"]["windows"]
    assert [(window["start"], window["end"]) for window in windows] == [(0, 0.5), (0.25, 0.75), (0.5, 1)]
    assert {event["name"] for event in steps[-1]["result"]["events"]} <= set("abcd")
    wrong = server.ask("POST", "api/timeline", params={"window": "nan"}, files={"file": content})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "parameter")


def test_info_says_the_model_and_the_limits(server):
    said = server.ask("GET", "api/info").json()
    assert (said["model"], said["num_classes"], said["topk"], said["precision"]) == ("STNET", 4, 2, "fp32")
    assert said["limits"]["bytes"] == Limits().bytes


def test_the_limits_are_the_defaults_of_the_flags():
    args = flags.parse("serve", None, [])
    assert (
        Limits(args.max_bytes, args.max_seconds, args.max_frames, args.max_pixels, args.request_seconds, args.queue)
        == Limits()
    )


def test_health_and_errors_are_in_the_form_of_paddlex(server):
    answer = server.ask("GET", "health").json()
    assert (answer["errorCode"], answer["errorMsg"], set(answer)) == (0, "Healthy", {"logId", "errorCode", "errorMsg"})
    wrong = server.ask("POST", "video-classification", json={"video": "AAAA", "topk": 0, "logId": "mine"})
    assert (wrong.status_code, wrong.json()["logId"], wrong.json()["errorCode"]) == (422, "mine", 422)
    assert [fault["loc"] for fault in json.loads(wrong.json()["errorMsg"])] == ["body.topk"]
    damaged = server.ask("POST", "video-classification", content=b'{"video": ')
    assert (damaged.status_code, json.loads(damaged.json()["errorMsg"])[0]["type"]) == (422, "json_invalid")


def test_head_is_answered_where_get_is(server):
    for path in ("health", "static/icon.svg", "", "docs", "metrics"):
        told = server.ask("HEAD", path)
        assert (told.status_code, told.content) == (200, b""), path


def test_metrics_count_what_was_asked(server, clip_set):
    def count(line):
        return float((re.search(rf"^{re.escape(line)} (\S+)$", server.ask("GET", "metrics").text, re.M) or [0, 0])[1])

    asked = 'stnet_http_requests_total{method="POST",path="/api/classify",status="200"}'
    before = count(asked), count("stnet_decodings_total")
    server.classify((clip_set / "val 0.mp4").read_bytes())
    assert (count(asked), count("stnet_decodings_total")) == (before[0] + 1, before[1] + 1)
    server.ask("GET", "any/path/of/a/client")
    assert 'path="other",status="404"' in server.ask("GET", "metrics").text


def test_the_documentation_is_served_from_this_machine_and_every_answer_is_headed(server):
    page = server.ask("GET", "docs")
    assert "http" not in re.sub("<!DOCTYPE.*?>", "", page.text)
    for path in re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text):
        assert server.ask("GET", path).status_code == 200
    assert set(server.ask("GET", "openapi.json").json()["paths"]) == {
        "/api/info", "/api/classify", "/api/timeline", "/video-classification", "/health", "/health/live",
        "/health/ready", "/metrics",
    }  # fmt: skip
    for answer in (page, server.ask("GET", "none"), server.ask("GET", "health")):
        assert answer.headers["content-security-policy"].startswith("default-src 'self'; img-src 'self' blob: data:")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "server" not in answer.headers


def test_sigterm_finishes_the_request_that_runs_and_ends_with_0(tmp_path, clip_set, trained):
    content = (clip_set / "val 0.mp4").read_bytes()
    with running(tmp_path, clip_set, trained) as up:
        answers = []

        def stop_halfway(connection):
            assert soon(up.left)
            up.process.send_signal(signal.SIGTERM)
            assert soon(lambda: "SIGTERM: finishing what runs" in (tmp_path / "log").read_text())
            connection.sendall(content[100:])
            answers.append(answer_of(connection))

        start = head("/api/classify", "Content-Type: video/mp4", f"Content-Length: {len(content)}")
        up.raw(start + content[:100], stop_halfway)
        assert (answers[0][0], len(answers[0][1]["categories"])) == (200, 2)
        assert up.process.wait(PATIENCE) == 0
        with pytest.raises(httpx.ConnectError):
            up.ask("GET", "health")
    assert list(tmp_path.glob("stnet-*")) == []


def test_what_a_killed_server_left_is_removed_by_the_next_one_and_nothing_of_a_living_one(tmp_path, clip_set, trained):
    with running(tmp_path, clip_set, trained) as killed:

        def kill_halfway(connection):
            assert soon(killed.left)
            killed.process.kill()
            killed.process.wait()

        start = head("/api/classify", "Content-Type: video/mp4", "Content-Length: 1000")
        killed.raw(start + b"x" * 100, kill_halfway)
    (left,) = tmp_path.glob("stnet-serve-*")
    assert [path.stat().st_size for path in left.iterdir()] != []
    (socket_folder,) = tmp_path.glob("pymp-*")
    with running(tmp_path, clip_set, trained) as second:
        assert not left.exists()
        assert not socket_folder.exists()
        (folder,) = tmp_path.glob("stnet-serve-*")
        with running(tmp_path, clip_set, trained) as third:
            assert folder.exists()
            assert third.stop() == 0
        assert second.classify((clip_set / "val 0.mp4").read_bytes()).status_code == 200
        assert second.stop() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_clients_that_leave_their_timelines_and_decoders_killed_while_idle_cost_nothing(server, clip_set, tmp_path):
    content = write_video(tmp_path / "long.mp4", frames=240).read_bytes()
    query = "/api/timeline?window=0.5&stride=0.05"
    start = head(query, "Content-Type: video/mp4", f"Content-Length: {len(content)}")
    for seconds in (0, 0.1, 0.2, 0.4, 0.8):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(start + content)
            time.sleep(seconds)
    assert soon(lambda: "\nstnet_places_taken 0.0" in server.ask("GET", "metrics").text)
    assert server.left() == []
    small = (clip_set / "val 0.mp4").read_bytes()
    assert server.ask("POST", "api/timeline", files={"file": small}).status_code == 200
    for _ in range(5):
        for pid in grandchildren(server.process.pid):
            os.kill(pid, signal.SIGKILL)
        assert server.classify(small).status_code == 200


def grandchildren(pid):
    """Processes that a process's children made: a server's decoders."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    return [child for child, parent in parents.items() if parents.get(parent) == pid]


def test_run_sh_serves_as_in_the_container(tmp_path, clip_set, trained):
    (host,) = re.findall("^ENV host=(.*)$", (PROJECT / "Dockerfile").read_text(encoding="utf-8"), re.M)
    words = ["bash", PROJECT / "run.sh", "serve", "STNET", clip_set / "tiny.yaml", "--port=0", "--engine=paddle"]
    made = {"host": host, "weights": str(trained / "STNET_final.pdparams"), "PYTHON": sys.executable}
    with started(words, tmp_path, **made) as up:
        assert up.said == f"STNET answers at http://127.0.0.1:{up.port}/#token={up.token}\n"
        assert up.ask("GET", "api/info").status_code == 401
        assert up.ask("GET", "api/info", headers={"Authorization": f"Bearer {up.token}"}).status_code == 200
        assert up.stop() == 0  # run.sh has become the server: a container's SIGTERM reaches it


@pytest.mark.long
@pytest.mark.parametrize("installed", ["wheel"], indirect=True)
def test_the_command_of_a_wheel_serves_the_page_too(installed, tmp_path, clip_set, trained):
    _, command, variables = installed
    words = [*command, "serve", "--config", clip_set / "tiny.yaml", "--port=0", "--engine=paddle"]
    words += ["--weights", trained / "STNET_final.pdparams"]
    with started(words, tmp_path, **variables) as up:
        page = up.ask("GET", "").text
        names = re.findall('(?:src|href)="(static/[^"]+)"', page)
        assert {"static/page.css", "static/page.js"} <= set(names)
        assert {up.ask("GET", name).status_code for name in names} == {200}
        assert up.classify((clip_set / "val 0.mp4").read_bytes()).status_code == 200
        assert up.stop() == 0


def failing(clip_set, *words):
    done = subprocess.run(
        [sys.executable, "serve_model.py", "--config", clip_set / "tiny.yaml", *map(str, words)],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr.splitlines()[-1]


def test_an_address_that_cannot_be_had_is_one_line(server, clip_set):
    said = f"error: port {server.port} of 127.0.0.1 is in use by another program; set --port to another, or to 0"
    assert failing(clip_set, f"--port={server.port}") == (1, f"{said} for any that is free")
    code, line = failing(clip_set, "--host=192.0.2.1", "--port=0")
    assert (code, line.partition(":")[0]) == (1, "error")
    assert "cannot listen at 192.0.2.1, port 0: " in line
    code, line = failing(clip_set, "--port=70000")
    assert (code, line) == (2, "error: argument --port: expected 0 to 65535, found 70000")


def test_help_needs_none_of_the_packages(clip_set):
    code = "import sys; sys.modules['paddle'] = sys.modules['fastapi'] = sys.modules['uvicorn'] = None"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; import serve_model; serve_model.main(['--help'])"],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--allowed_hosts" in done.stdout


def test_missing_packages_are_one_line(clip_set):
    code = "import sys; sys.modules['fastapi_offline'] = None; import serve_model; from stnet import cli"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; sys.exit(cli.run(serve_model.main, ['--config={clip_set}/tiny.yaml']))"],
        cwd=PROJECT, capture_output=True, text=True, check=False, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: the server needs the package fastapi_offline, which is not installed; bash ")
