import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from gahb.execution import spot_notice


class Instance(BaseHTTPRequestHandler):
    """The metadata service of an instance, version 2: a token first, then the notice if there is one."""

    taken_back = False

    def do_PUT(self) -> None:
        assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self._answer(200, "token")

    def do_GET(self) -> None:
        if self.headers["X-aws-ec2-metadata-token"] != "token":
            self._answer(401, "")
        elif self.path == "/latest/meta-data/spot/instance-action" and self.taken_back:
            self._answer(200, json.dumps({"action": "terminate", "time": "2026-09-18T08:22:00Z"}))
        else:
            self._answer(404, "")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def instance() -> Iterator[tuple[str, type[Instance]]]:
    class Own(Instance):
        pass

    server = HTTPServer(("127.0.0.1", 0), Own)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Own
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_notice_asks_for_a_checkpoint(instance: tuple[str, type[Instance]], monkeypatch: pytest.MonkeyPatch) -> None:
    url, service = instance
    assert spot_notice.notice(url) is None
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
    monkeypatch.setattr(spot_notice, "POLL_SECONDS", 0.05)
    save = threading.Event()
    with spot_notice.watched(save):
        assert not save.wait(0.3)
        service.taken_back = True
        assert save.wait(5)
    assert (spot_notice.notice(url) or {})["action"] == "terminate"


def test_elsewhere_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", raising=False)
    before = threading.active_count()
    with spot_notice.watched(threading.Event()):
        assert threading.active_count() == before
