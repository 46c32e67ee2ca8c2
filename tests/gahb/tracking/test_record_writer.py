"""A run's creation whose answer is lost, on an SQLite file and on an MLflow server behind a proxy."""

import http.client
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gahb.tracking.client import HTTP_RETRIES, IDEMPOTENT
from gahb.tracking.record_writer import CREATION_TRIES, RecordWriter
from gahb.tracking.run import Kind, member_of
from tests.helpers import TRIAL_TAGS, Place, free_ports, process

TAGS = {
    **TRIAL_TAGS,
    **member_of("s"),
    "gahb.signature": "abcdefabcdef",
    "gahb.launch": "0123456789ab",
    "gahb.reason": "",
}


def create(writer: RecordWriter, **tags: str) -> str:
    return writer.create("s", "a trial", params={"width": 8}, tags={**TAGS, **tags})


def cut_off(writer: RecordWriter, monkeypatch: pytest.MonkeyPatch, *answers: bool) -> list[str]:
    """Break the connection in the first creations, before (False) or after (True) they are carried out; returns the
    list that will hold what was created."""
    carry_out, created, left = writer.client.create_run, list[str](), list(answers)

    def create_run(*arguments: Any, **options: Any) -> Any:
        broken = left.pop(0) if left else None
        if broken is not False:
            run = carry_out(*arguments, **options)
            created.append(run.info.run_id)
        if broken is not None:
            raise ConnectionResetError("Connection reset by peer")
        return run

    monkeypatch.setattr(writer.client, "create_run", create_run)
    return created


@pytest.mark.parametrize("answers", [(True,), (False,), (False, True), (False, False, False)])
def test_a_run_whose_answer_is_lost_is_made_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, answers: tuple[bool, ...]
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    writer = place.writer
    like_it = create(writer, **{"gahb.launch": "ba9876543210"})
    created = cut_off(writer, monkeypatch, *answers)
    run_id = create(writer)
    assert created == [run_id]
    assert [run.run_id for run in place.record.runs(Kind.TRIAL)] == [like_it, run_id]
    (_, run) = place.record.runs(Kind.TRIAL)
    assert run.state == "scheduled" and run.params == {"width": "8"} and TAGS.items() <= run.tags.items()


def test_creation_is_given_up_when_the_record_answers_and_creates_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    writer = place.writer
    created = cut_off(writer, monkeypatch, *(CREATION_TRIES * [False]))
    with pytest.raises(ConnectionResetError):
        create(writer)
    assert created == [] and place.record.runs() == []


def test_only_idempotent_calls_are_retried(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    retrying = RecordWriter(place.record.uri, place.store.url, retry=True)
    inner: Any = retrying.client.client  # type: ignore[attr-defined]
    assert all(hasattr(inner, name) for name in IDEMPOTENT)
    run_id = create(retrying)
    for name in ("log_batch", "update_run", "get_run", "search_runs"):
        call, failures = getattr(inner, name), [TimeoutError("no answer"), TimeoutError("no answer")]

        def answer(*arguments: Any, call: Any = call, failures: list[Exception] = failures, **options: Any) -> Any:
            if failures:
                raise failures.pop()
            return call(*arguments, **options)

        monkeypatch.setattr(inner, name, answer)
    retrying.tag(run_id, {"gahb.reason": "once"})
    retrying.start(run_id)
    assert retrying.tags(run_id)["gahb.reason"] == "once"
    assert [run.state for run in retrying.runs(Kind.TRIAL)] == ["running"]


@dataclass
class Proxy:
    """Stands between client and server, and breaks the connection where it is told to.

    Args:
        uri: where it listens.
        lost: for each creation of a run to come, in order: "request" (the server never sees it), "answer" (it does, and
            the client does not see the answer), or "" (all goes well).
        seen: the creations that a client has asked for.
    """

    uri: str = ""
    lost: list[str] = field(default_factory=list)
    seen: int = 0


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy before an MLflow server."""
    folder: Path = tmp_path_factory.mktemp("server")
    (port,) = free_ports(1)
    state = Proxy()

    class Between(BaseHTTPRequestHandler):
        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            lost = ""
            if urlsplit(self.path).path.endswith("/runs/create"):
                state.seen += 1
                lost = state.lost.pop(0) if state.lost else ""
            if lost == "request":
                return
            server = http.client.HTTPConnection("127.0.0.1", port)
            server.request(self.command, self.path, body, dict(self.headers))
            answer = server.getresponse()
            content = answer.read()
            server.close()
            if lost == "answer":
                return
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = forward

        def log_message(self, format: str, *args: object) -> None:
            return

    words = [sys.executable, "-m", "mlflow", "server", f"--port={port}", "--workers=1"]
    words += [f"--backend-store-uri=sqlite:///{folder}/record.db", f"--artifacts-destination={folder}/artifacts"]
    between = ThreadingHTTPServer(("127.0.0.1", 0), Between)
    state.uri = f"http://127.0.0.1:{between.server_port}"
    thread = threading.Thread(target=between.serve_forever)
    with process(words, f"http://127.0.0.1:{port}/health", {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}):
        thread.start()
        yield state
        between.shutdown()
        thread.join()
        between.server_close()


@pytest.mark.parametrize(("lost", "retry"), [(["answer"], False), (["request", "answer"], True)])
def test_mlflow_itself_repeats_no_creation(
    proxy: Proxy, lost: list[str], retry: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HTTP_RETRIES, "2")
    writer = RecordWriter(proxy.uri, "file:///nowhere", retry=retry)
    signature = f"{retry:012x}"
    proxy.lost, before = list(lost), proxy.seen
    run_id = create(writer, **{"gahb.signature": signature})
    assert proxy.seen - before == len(lost) and not proxy.lost
    assert [run.run_id for run in writer.runs(Kind.TRIAL) if run.signature == signature] == [run_id]
