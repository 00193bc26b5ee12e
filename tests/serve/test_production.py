"""What orchestrators, proxies and log collectors ask of a server."""

import hashlib
import json
import re
import signal
import socket

import pytest
import yaml
from running import PATIENCE, PROJECT, head, httpx, running, soon

from stnet import flags
from stnet.serve.server import bind


@pytest.fixture(scope="module")
def server(tmp_path_factory, clip_set, trained):
    folder = tmp_path_factory.mktemp("server")
    with running(folder, clip_set, trained, "--log_json", STNET_TOKEN="my-own") as up:
        up.folder = folder
        yield up


def ask(server, path, **headers):
    return server.ask("GET", path, headers={"Authorization": "Bearer my-own", **headers})


def test_a_port_that_is_taken_answers_nobody_before_the_server_is_ready():
    address = bind("127.0.0.1", 0)
    with address.socket, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", address.port), timeout=PATIENCE)


def test_health_is_answered_without_the_token(server):
    for path in ("health/live", "health/ready"):
        answer = server.ask("GET", path)
        assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


def test_the_weights_that_answer_are_named_with_their_digest(server, trained):
    digest = hashlib.sha256((trained / "STNET_final.pdparams").read_bytes()).hexdigest()
    assert ask(server, "api/info").json()["weights"] == {"name": "STNET_final.pdparams", "sha256": digest}
    assert f'stnet_model_info{{name="STNET_final.pdparams",sha256="{digest}"}} 1.0' in ask(server, "metrics").text


def test_a_request_has_an_id_in_the_answer_and_in_the_log(server):
    assert ask(server, "api/info", **{"X-Request-ID": "from-proxy.1"}).headers["x-request-id"] == "from-proxy.1"
    made = ask(server, "api/info", **{"X-Request-ID": "a b\x7f"}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{16}", made)
    rows = [json.loads(line) for line in (server.folder / "log").read_text().splitlines()]
    (row,) = [row for row in rows if row.get("request_id") == "from-proxy.1"]
    assert (row["method"], row["path"], row["status"], row["level"]) == ("GET", "/api/info", 200, "INFO")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", row["time"])


def test_a_server_that_ends_takes_no_more_requests_and_ends_in_the_time_it_is_given(tmp_path, clip_set, trained):
    with running(tmp_path, clip_set, trained, "--drain_seconds=1", "--body_seconds=600") as up:
        refused = []

        def stop_halfway(connection):
            assert soon(up.left)
            up.process.send_signal(signal.SIGTERM)
            assert soon(lambda: "SIGTERM: finishing what runs" in (tmp_path / "log").read_text())
            with pytest.raises(httpx.TransportError):
                while up.process.poll() is None:
                    up.ask("GET", "health/ready")
            refused.append(up.process.poll() is None)
            up.process.wait(PATIENCE)  # though the rest of the upload never comes

        up.raw(head("/api/classify", "Content-Type: video/mp4", "Content-Length: 1000") + b"x" * 100, stop_halfway)
        assert refused == [True]


def test_the_manifest_of_kubernetes_fits_the_server():
    with open(PROJECT / "examples" / "kubernetes.yaml", encoding="utf-8") as file:
        deployment, service = yaml.safe_load_all(file)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    action, name, _, *given = container["args"]
    args = flags.parse("serve", None, given)
    assert (action, name, args.log_json) == ("serve", "STNET", True)
    assert pod["terminationGracePeriodSeconds"] > args.drain_seconds >= args.body_seconds + args.request_seconds
    ports = [container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")]
    assert {*ports, container["ports"][0]["containerPort"], service["spec"]["ports"][0]["targetPort"]} == {args.port}
