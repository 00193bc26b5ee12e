"""Whatever is sent to the paths of the OpenAPI description is answered as it says, and never by a fault."""

import pytest
from running import running

schemathesis = pytest.importorskip("schemathesis", minversion="4.0", reason="of setup test; it needs Python 3.10")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from schemathesis import GenerationMode, checks  # noqa: E402

OPERATIONS = [
    ("/api/info", "GET"), ("/api/classify", "POST"), ("/api/timeline", "POST"), ("/video-classification", "POST"),
    ("/health", "GET"), ("/health/live", "GET"), ("/health/ready", "GET"), ("/metrics", "GET"),
]  # fmt: skip
CHECKS = [
    getattr(checks, name)
    for name in (
        "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    )
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory, clip_set, trained):
    with running(tmp_path_factory.mktemp("server"), clip_set, trained, "--max_bytes=1000000") as up:
        yield up
        assert up.is_empty_soon()


@pytest.fixture(scope="module")
def described(server):
    return schemathesis.openapi.from_url(f"{server.url}openapi.json")


def send(operation, mode, examples):
    """Requests of the kind that the description allows, or that it does not."""

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case):
        case.call_and_validate(checks=CHECKS)

    one()


def test_every_path_is_tried(described):
    assert {(path, method.upper()) for path in described for method in described[path]} == set(OPERATIONS)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_no_request_is_a_fault(described, path, method):
    send(described[path][method], GenerationMode.POSITIVE, 20)
    if method == "POST":
        send(described[path][method], GenerationMode.NEGATIVE, 20)


@pytest.mark.long
@pytest.mark.parametrize(("path", "method"), [row for row in OPERATIONS if row[1] == "POST"])
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_none_of_many_requests_is_a_fault(described, path, method, mode):
    send(described[path][method], mode, 300)
