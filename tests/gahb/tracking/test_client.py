import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import requests
from mlflow.exceptions import MlflowException, RestException

from gahb.tracking.client import HTTP_RETRIES, is_retryable, no_http_retries


@pytest.fixture
def server() -> Iterator[str]:
    """A web server that answers /503 with status 503."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path[1:]))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    answering = HTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=answering.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{answering.server_port}"
    answering.shutdown()
    thread.join()
    answering.server_close()


@pytest.mark.parametrize(("status", "passes"), [(500, True), (503, True), (429, True), (400, False), (404, False)])
def test_a_server_s_trouble_passes_and_a_wrong_request_does_not(server: str, status: int, passes: bool) -> None:
    with pytest.raises(requests.HTTPError) as raised:
        requests.get(f"{server}/{status}").raise_for_status()
    assert is_retryable(raised.value) is passes


def test_what_mlflow_raises_is_told_apart_by_its_status() -> None:
    for code, passes in (("TEMPORARILY_UNAVAILABLE", True), ("RESOURCE_DOES_NOT_EXIST", False)):
        assert is_retryable(RestException({"error_code": code, "message": "as the server says"})) is passes
    assert is_retryable(MlflowException("(sqlite3.OperationalError) database is locked"))
    assert not is_retryable(MlflowException.invalid_parameter_value("no such key"))


def test_a_server_that_is_not_there_passes(server: str) -> None:
    with pytest.raises(requests.ConnectionError) as raised:
        requests.get("http://127.0.0.1:1")
    assert is_retryable(raised.value) and not is_retryable(ValueError("nonsense"))


@pytest.mark.parametrize("before", [None, "7"])
def test_mlflow_s_own_retries_are_as_before_after_the_block(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before is None:
        monkeypatch.delenv(HTTP_RETRIES)
    else:
        monkeypatch.setenv(HTTP_RETRIES, before)
    with pytest.raises(KeyError), no_http_retries():
        assert os.environ[HTTP_RETRIES] == "0"
        raise KeyError
    assert os.environ.get(HTTP_RETRIES) == before
