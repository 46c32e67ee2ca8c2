"""What others write into the record: runs that gahb cannot have made, places for artifacts that are none, names that
command a terminal. Nobody's commands end by them, nothing leaves for elsewhere, and what is shown is harmless."""

import json
import os
import stat
import subprocess
import sys
import threading
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from gahb_analysis.page import page
from matplotlib.figure import Figure

from gahb import api
from gahb.errors import UserError
from gahb.execution.analysis import AnalysisResult, log_result
from gahb.figures import style
from gahb.own_folder import own_folder
from gahb.storage.base import record_uri
from gahb.tracking import lookup, parsing
from gahb.tracking.record import Record
from gahb.tracking.record_writer import RecordWriter
from gahb.tracking.run import Kind, Tag
from gahb.trial import Trial
from tests.helpers import TINY, TRIAL_TAGS, Ended, Place, finish, free_ports, new_trial, process

Command = Callable[..., Ended]

SMALL = [f"{key}={value}" for key, value in {**TINY, "images": 64}.items()]
FLAT = json.loads(TRIAL_TAGS["gahb.trial"])
WHOLE = {**TRIAL_TAGS, "gahb.signature": "0123456789ab", "gahb.sweep.s": "true"}
RATES = {"gahb.kind": "calibration", "gahb.device": "x"}


def rates(trial: object = FLAT, seconds: object = 1e-3) -> dict[str, str]:
    return {**RATES, "gahb.rates": json.dumps([{"trial": trial, "seconds": seconds}])}


def of_trial(**changes: object) -> dict[str, str]:
    return {**WHOLE, "gahb.trial": json.dumps({**FLAT, **changes})}


POISON: list[dict[str, str]] = [
    {"gahb.kind": "trial"},
    {"gahb.kind": "import"},
    {"gahb.kind": "calibration"},
    {"gahb.kind": "\x1b[2J"},
    RATES,
    {**RATES, "gahb.rates": "[" * 9000},
    {**RATES, "gahb.rates": "{}"},
    {**RATES, "gahb.rates": "[1]"},
    rates(trial=None),
    rates(trial={"resolution": [16]}),
    *(rates(seconds=seconds) for seconds in (0, -1, "x", None, True, 1e-300, float("nan"), float("inf"))),
    {**WHOLE, "gahb.signature": "../../elsewhere"},
    {**WHOLE, "gahb.signature": "0123456789ab\n"},
    {**WHOLE, "gahb.launch": "../elsewhere"},
    {**WHOLE, "gahb.starts": "0:x"},
    {**WHOLE, "gahb.data_hash": "../data"},
    {**WHOLE, "gahb.subset": "C"},
    {**WHOLE, "gahb.trial": "no JSON"},
    {**WHOLE, "gahb.trial": "[]"},
    {**WHOLE, "gahb.trial": "[" * 9000},
    {**WHOLE, "gahb.trial": "1" * 5000},
    of_trial(alpha=float("nan")),
    of_trial(alpha={}),
    of_trial(images="many"),
    of_trial(images=10**30),
    of_trial(resolution=16.5),
    of_trial(n_train=True),
    of_trial(subset="B"),
    of_trial(dataset=None),
    *({**WHOLE, "gahb.plugins": plugins} for plugins in ("{", "1", "[1]", '[{"group": ["x"]}]')),
    *({**WHOLE, "gahb.share": share} for share in ("much", "0", "-1", "nan", "inf", "1e300")),
    *({**WHOLE, "gahb.planned_seconds": planned} for planned in ("soon", "0", "nan", "1e-300")),
    {key: value for key, value in WHOLE.items() if key != "gahb.sweep.s"},
    {**WHOLE, "gahb.sweep.s": "", "gahb.of.0": "../x"},
]
"""The tags of runs that gahb does not make."""


def poisoned(writer: Any, experiment: str, number: int, tags: dict[str, str]) -> str:
    """A finished run with these tags and no more."""
    run_id = str(writer.create_run(experiment, tags=tags, run_name=f"poison{number}").info.run_id)
    writer.set_terminated(run_id, "FINISHED")
    return run_id


@pytest.fixture
def poison(place: Place) -> list[str]:
    """A record with one good trial, in a sweep of its own, and every poison; the ids of the latter."""
    finish(place, new_trial(place, signature="abcdefabcdef"))
    client = place.writer.client
    (experiment,) = client.search_experiments(filter_string="name = 's'")
    return [poisoned(client, experiment.experiment_id, i, tags) for i, tags in enumerate(POISON)]


def left_out(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]


def test_runs_that_gahb_cannot_have_made_stop_no_command_and_are_named_once(
    poison: list[str], place: Place, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    for words in (
        ["status"],
        ["status", "s"],
        ["plan", "demo", *SMALL, "n_train=1"],
        ["show", "16x16-N1-A", "--json"],
        ["logs", "16x16-N1-A"],
        ["stop", "s"],
    ):
        ended = command("gahb-sweep", *words, *place.flags)
        if words[0] == "show":  # it was never trained
            assert "cannot be read" in ended.err
        else:
            assert ended.code == 0, ended
        assert "poison" not in ended.out
    assert [run.name for run in place.record.runs()] == ["16x16-N1-A"]
    counts = [int(line.split()[2]) for line in left_out(caplog)]
    assert sum(counts) == len(poison), "each run once"
    assert all(line.count("poison") <= 3 and line.isprintable() for line in left_out(caplog))


def run_alone(*words: str, **environment: str) -> Ended:
    """A command in a process of its own, which must end."""
    code = "from gahb_sweeps.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def test_a_line_on_stderr_tells_of_what_was_left_out(poison: list[str], place: Place) -> None:
    ended = run_alone("status", "--json", *place.flags)
    assert [row["name"] for row in ended.json["trials"]] == ["16x16-N1-A"]
    (line,) = ended.err.splitlines()
    assert line.startswith("left out ") and "(poison0): it has no gahb.signature; " in line and line.endswith("; …")


def test_metrics_that_are_no_numbers(place: Place, command: Command) -> None:
    for i, (key, value) in enumerate(
        [("images_seen", "nan"), ("images_seen", "inf"), ("images_per_second", "0"), ("psnr_gap", "nan")]
    ):
        run_id = new_trial(place, f"poison{i}", f"{i:012x}")
        finish(place, run_id)
        place.writer.log_metrics(run_id, {key: float(value)})
    finish(place, new_trial(place))
    assert [row["name"] for row in command("gahb-sweep", "status", "--json", *place.flags).json["trials"]] == [
        "16x16-N1-A"
    ]


def test_a_launch_that_is_a_pipe_does_not_hang_who_looks(place: Place) -> None:
    run_id = new_trial(place)
    place.writer.tag(run_id, {Tag.LAUNCH: "../pipe"})
    (place.storage / "launches").mkdir(parents=True)
    os.mkfifo(place.storage / "pipe")
    ended = run_alone("status", "--json", *place.flags)
    assert ended.code == 0 and ended.json["trials"] == [] and "gahb.launch is not of the form" in ended.err


def test_a_signature_leads_to_no_other_folder_s_files(place: Place, command: Command) -> None:
    run_id = new_trial(place)
    place.execute("UPDATE tags SET value = '../../elsewhere' WHERE key = 'gahb.signature'")
    (place.folder / "elsewhere" / "log").mkdir(parents=True)
    (place.folder / "elsewhere" / "log" / "x.txt").write_text("a secret")
    (place.storage / "trials").mkdir(parents=True)
    ended = command("gahb-sweep", "logs", run_id, *place.flags)
    assert ended.code == 2 and "secret" not in ended.out + ended.err


def test_starts_that_are_none_count_for_nothing() -> None:
    for text in ("", "x", "1:", ":1", "1:x", "-1:-5", "1:1:1", "9" * 5000 + ":1", "²:1"):
        assert parsing.starts({Tag.STARTS: text}) == (-1, 0)
    assert parsing.starts({Tag.STARTS: "12:3"}) == (12, 3)


# where artifacts are


@dataclass
class Listener:
    """An HTTP server that keeps what it is sent."""

    port: int = 0
    seen: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def evil() -> Iterator[Listener]:
    state = Listener()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            state.seen.append(f"{self.command} {self.path} {self.headers.get('Authorization')}")
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_POST = answer

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


LOCATIONS = [
    "http://127.0.0.1:{port}/api/2.0/mlflow-artifacts/artifacts/x/{run}/artifacts",
    "mlflow-artifacts://127.0.0.1:{port}/x/{run}/artifacts",
    "mlflow-artifacts:/x/{run}/artifacts",
    "file://{folder}/elsewhere#/{run}/artifacts",
    "file://{folder}/elsewhere?/{run}/artifacts",
    "file://{folder}/elsewhere/{run}/artifacts",
    "file://{folder}/storage/%2e%2e/elsewhere/{run}/artifacts",
    "file://{folder}/storage/%252e%252e/elsewhere/{run}/artifacts",
    "file://{folder}/storage/link/{run}/artifacts",
    "file://127.0.0.1{folder}/storage/artifacts/{run}/artifacts",
    "{folder}/storage/artifacts/{run}/artifacts",
    "file://{folder}/storagex/{run}/artifacts",
    "s3://bucket/{run}/artifacts",
    "ftp://127.0.0.1:{port}/{run}/artifacts",
    "file://{folder}/storage/\n/{run}/artifacts",
]


@pytest.mark.parametrize("location", LOCATIONS)
def test_artifacts_are_neither_read_from_elsewhere_nor_written_there(
    location: str, place: Place, evil: Listener, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "bob")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    trial = Trial.of({**TINY, "n_train": 1})
    run_id = new_trial(place, signature=trial.signature(trial.dataset.hash(place.store)))
    elsewhere = place.folder / "elsewhere"
    place.storage.mkdir()
    (place.storage / "link").symlink_to(elsewhere)
    for folder in (elsewhere, elsewhere / run_id / "artifacts", place.folder / "storagex" / run_id / "artifacts"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "card.json").write_text("a secret")
    uri = location.format(port=evil.port, folder=place.folder, run=run_id)
    place.execute("UPDATE runs SET artifact_uri = ?", uri)
    before = files(place)
    with pytest.raises(UserError, match="no place for them"):
        place.launch([trial])  # which would go on with this run
    finish(place, run_id)
    (place.folder / "new").mkdir()
    for write in (
        lambda: place.writer.add_artifacts(run_id, place.folder / "new"),
        lambda: place.writer.add_text(run_id, "x", "x.txt"),
        lambda: place.record.artifacts(run_id),
        lambda: place.record.artifacts(run_id, "card.json"),
        lambda: api.load(run_id, record=place.record.uri, storage=str(place.storage)),
    ):
        with pytest.raises(UserError, match=r"no place for them.*--storage"):
            write()
    for name, *words in (["gahb-sweep", "show", run_id], ["gahb-analyze", "theory", run_id]):
        ended = command(name, *words, *place.flags)
        (line,) = ended.err.splitlines()
        assert ended.code == 2 and ended.out == "" and "no place for them" in line
    assert files(place) == before and evil.seen == []


def files(place: Place) -> set[str]:
    return {str(file) for file in place.folder.rglob("*") if file.is_file() and not file.name.startswith("record.db")}


def test_artifacts_are_found_by_each_name_of_their_storage(place: Place) -> None:
    run_id = new_trial(place)
    (place.folder / "x").mkdir()
    (place.folder / "x" / "a.txt").write_text("kept")
    place.writer.add_artifacts(run_id, place.folder / "x")
    (place.folder / "another name").symlink_to(place.storage)
    record = Record(place.record.uri, (place.folder / "another name").as_uri())
    assert record.artifacts(run_id, "a.txt").read_text() == "kept"


def test_a_forestalled_experiment_gets_no_runs(place: Place) -> None:
    theirs = place.folder / "theirs"
    for name in ("tiny", "tiny-analysis"):
        place.writer.client.create_experiment(name, theirs.as_uri())
    with pytest.raises(UserError, match=r"the experiment 'tiny' are said to be in file:.*theirs, which is no place"):
        place.launch([Trial.of({**TINY, "n_train": 1})])
    assert not place.storage.exists(), "nothing has started"
    run = lookup.find(place.record, new_trial(place))
    with pytest.raises(UserError, match="experiment 'tiny-analysis'"):
        log_result(place.context, "pairs", AnalysisResult(name="x", runs=[run], data={}), "tiny")
    assert not theirs.exists() and len(place.record.runs()) == 1


# what is shown


ODD = "a\x1b[2J\x9b1A\nforged\u202e$\\frac{$ [x](http://evil) =1"


def harmless(text: str, keep: str = "\n") -> bool:
    return all(letter.isprintable() or letter in keep for letter in text)


def test_names_and_reasons_command_no_terminal(place: Place, command: Command) -> None:
    run_id = new_trial(place)
    place.execute("UPDATE runs SET name = ?", ODD)
    place.execute("INSERT INTO params (key, value, run_uuid) VALUES ('\x1bx', '\x1b[2J', ?)", run_id)
    place.writer.fail(run_id, ODD)
    log = place.storage / "trials" / "abcdefabcdef" / "log"
    log.mkdir(parents=True)
    (log / "x.txt").write_bytes(b"one\ttwo\n\x1b]0;three\x07\xff\n")
    for words in (["status"], ["status", "s"], ["show", run_id], ["logs", run_id], ["show", ODD]):
        for options in ([], ["--json"]):
            ended = command("gahb-sweep", *words, *options, *place.flags)
            assert ended.code == 0 and harmless(ended.out, "\n\t") and harmless(ended.err), ended
            assert "\nforged" not in ended.out + ended.err
    assert "one\ttwo\n\\x1b]0;three" in command("gahb-sweep", "logs", run_id, *place.flags).out
    (row,) = command("gahb-sweep", "status", "--json", *place.flags).json["trials"]
    assert row["name"] == row["reason"] == ODD, "JSON gives it back"
    ended = command("gahb-analyze", "theory", run_id, *place.flags)
    assert ended.code == 2 and len(ended.err.splitlines()) == 1 and harmless(ended.err)


def test_a_name_in_a_picture_is_no_formula() -> None:
    for name in ("$\\frac{$", "a$b$c", "\\$\\frac{$", "λ$_k$", "$$"):
        picture = Figure()
        picture.suptitle(style.plain(name))
        picture.canvas.draw()
        (text,) = (child for child in picture.get_children() if getattr(child, "get_text", str)() == style.plain(name))
        assert text._preprocess_math(text.get_text())[0] == name  # type: ignore[attr-defined]


def test_pictures_are_drawn_of_models_of_any_name(copied: Place, command: Command) -> None:
    for name in ("16x16-N1-A", "16x16-N1-B"):
        copied.execute("UPDATE runs SET name = ? WHERE name = ?", f"{name} $\\frac{{$ \n$x$", name)
    a, b = (f"{name} $\\frac{{$ \n$x$" for name in ("16x16-N1-A", "16x16-N1-B"))
    for words in (["pair", a, b, "--samples", "2"], ["basis", a], ["theory", a], ["trajectories", a, b]):
        ended = command("gahb-analyze", *words, *copied.flags)
        assert ended.code == 0 and harmless(ended.out + ended.err), ended


def test_a_name_is_no_formula_in_a_table_and_no_link_in_a_note(place: Place) -> None:
    run_id = new_trial(place)
    place.execute("UPDATE runs SET name = ?", ODD)
    cells = ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "x=1", ""]
    table = pd.DataFrame({"name": cells, "number": [-1.5] * len(cells)})
    run = lookup.find(place.record, run_id)
    result = AnalysisResult(name="x", runs=[run], data={}, tables={"x": table}, lines=[])
    made, folder = log_result(place.context, "pairs", result)
    lines = (folder / "x.csv").read_bytes().decode().replace('"', "").split(",-1.5\n")
    assert lines[:-1] == ["name,number\n'=1+1", "'+1", "'-1", "'@x", "'\tx", "'\rx", "x=1", ""]
    note = place.record.tags(made)["mlflow.note.content"]
    assert harmless(note) and "\\[x\\](http\\://evil)" in note and note.count("\n") == 2


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://bob:secret@127.0.0.1:9", "http://127.0.0.1:9"),
        ("postgresql://bob:secret@127.0.0.1:9/x", "postgresql://bob:…@127.0.0.1:9/x"),
        ("ftp://bob:secret@127.0.0.1/x", "ftp://bob:…@127.0.0.1/x"),
    ],
)
def test_a_password_in_an_address_is_not_shown(
    uri: str, shown: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "")
    ended = command("gahb-sweep", "status", "--record", uri)
    assert ended.code == 2 and shown in ended.err and "secret" not in ended.err


def test_a_server_s_password_moves_to_where_mlflow_looks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{key}", "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://b%40b:p%2Fw:x@host:5000/path")
    assert record_uri() == os.environ["MLFLOW_TRACKING_URI"] == "https://host:5000/path"
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == ("b@b", "p/w:x")


def test_a_reason_holds_no_password(place: Place) -> None:
    run_id = new_trial(place)
    place.writer.fail(run_id, "postgresql://bob:secret@host/x does not answer")
    assert place.record.tags(run_id)[Tag.REASON] == "postgresql://bob:…@host/x does not answer"


def test_a_report_takes_regular_files_alone(place: Place, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    finish(place, new_trial(place))
    (run,) = place.record.runs(Kind.TRIAL)
    folder, secret = tmp_path / "artifacts", tmp_path / "secret"
    folder.mkdir()
    secret.write_text("a,secret\n1,2\n")
    (folder / "picture.png").write_bytes(b"picture")
    (folder / "table.csv").write_text("fine\n1\n")
    for name in ("link.png", "link.csv"):
        (folder / name).symlink_to(secret)
    with (folder / "large.png").open("wb") as stream:
        stream.truncate(1 << 40)
    (folder / "zero.csv").symlink_to("/dev/zero")
    (folder / "empty.csv").write_text("")
    (folder / "bytes.csv").write_bytes(b"\xff\xfe\x00\n\x00")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.csv")
    text = page("s", pd.DataFrame({"run_id": ["x"], "n": [1]}), [(run, folder)], {})
    assert text.count("<img") == 1 and b64encode(b"picture").decode() in text and "fine" in text
    assert "secret" not in text and b64encode(secret.read_bytes()).decode() not in text
    assert capfd.readouterr().err.count("left out: ") == 8


# a server with accounts


@dataclass(frozen=True)
class Server:
    """An MLflow server on which ann and bob have accounts."""

    uri: str
    storage: Path

    @property
    def flags(self) -> list[str]:
        return ["--record", self.uri, "--storage", str(self.storage)]

    def create_user(self, name: str) -> None:
        body = json.dumps({"username": name, "password": f"password-of-{name}"}).encode()
        login = b64encode(b"admin:password-of-admin").decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        address = f"{self.uri}/api/2.0/mlflow/users/create"
        urllib.request.urlopen(urllib.request.Request(address, body, headers)).close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("flask_wtf", reason="accounts need mlflow[auth]")
    folder = tmp_path_factory.mktemp("server")
    (port,) = free_ports(1)
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = EDIT\ndatabase_uri = sqlite:///{folder}/accounts.db\nadmin_username = admin\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\nauth_cache_ttl_seconds = 60\n"
    )
    words = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", f"--port={port}", "--workers=1"]
    words += [f"--backend-store-uri=sqlite:///{folder}/record.db", f"--artifacts-destination={folder}/artifacts"]
    environment = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": "password-of-admin",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "key",
    }
    state = Server(f"http://127.0.0.1:{port}", folder / "storage")
    with process(words, f"{state.uri}/health", environment):
        for name in ("ann", "bob"):
            state.create_user(name)
        yield state


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have this process send an account's name and password."""

    def account(name: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", f"password-of-{name}")

    return account


def test_another_account_s_runs_do_not_stop_a_sweep(
    ray_here: None,
    server: Server,
    become: Callable[[str], None],
    command: Command,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    trial = Trial.of({**TINY, "images": 64, "n_train": 1})
    signature = trial.signature(trial.dataset.hash(Place(tmp_path).store))
    bobs = {**WHOLE, "gahb.trial": json.dumps(trial.flat()), "gahb.signature": signature, "gahb.sweep.bobs": "true"}
    become("ann")
    client = RecordWriter(server.uri, "").client
    experiment = client.create_experiment("anns")
    tags = [
        RATES,
        rates(seconds="x"),
        {"gahb.kind": "trial"},
        {**bobs, "gahb.trial": "x"},
        {**bobs, "gahb.share": "x", "gahb.device": "x"},
        {**bobs, "gahb.planned_seconds": "x"},
    ]
    elsewhere = client.create_experiment("anns-folder", f"file://{tmp_path}/anns")
    client.create_run(elsewhere, tags=bobs, run_name="poison")
    for i, each in enumerate(tags):
        poisoned(client, experiment, i, each)
    become("bob")
    sweep = ["demo", *SMALL, "n_train=1", "subset=A"]
    for words in (["status"], ["plan", *sweep], ["launch", *sweep, "--as", "bobs"], ["status", "bobs"]):
        ended = command("gahb-sweep", *words, "--json", *server.flags)
        assert ended.code == 0, ended
        rows = ended.json["trials"]
    assert [(row["name"], row["state"]) for row in rows] == [("16x16-N1-A", "finished")]
    (row,) = rows
    lines = " ".join(left_out(caplog))
    counts = [int(line.split()[2]) for line in left_out(caplog)]
    assert sum(counts) == len(tags) + 1 and "no place for them" in lines, lines
    assert not (tmp_path / "anns").exists() and "password" not in lines
    folder = Record(server.uri, server.storage.as_uri()).artifacts(row["run_id"])
    assert (folder / "weights.safetensors").exists() and folder.is_relative_to(own_folder("downloads"))
    assert stat.S_IMODE(own_folder("downloads").stat().st_mode) == 0o700
    shown = command("gahb-sweep", "show", row["run_id"], "--json", *server.flags)
    assert (Path(shown.json["artifacts"]) / "card.json").exists()


def test_another_account_s_experiment_gets_nothing(
    server: Server, become: Callable[[str], None], command: Command, tmp_path: Path
) -> None:
    become("ann")
    theirs = tmp_path / "anns"
    theirs.mkdir()
    RecordWriter(server.uri, "").client.create_experiment("next", theirs.as_uri())
    become("bob")
    ended = command("gahb-sweep", "launch", "demo", *SMALL, "n_train=4", "--as", "next", *server.flags)
    (line,) = ended.err.splitlines()
    assert ended.code == 2 and "the experiment 'next'" in line and "no place for them" in line
    assert list(theirs.iterdir()) == []


def test_who_gives_the_password_in_the_address_gets_in_and_leaves_it_nowhere(
    server: Server, become: Callable[[str], None], command: Command
) -> None:
    become("nobody")
    uri = server.uri.replace("//", "//bob:password-of-bob@")
    ended = command("gahb-sweep", "status", "--json", "--record", uri, "--storage", str(server.storage))
    assert ended.code == 0 and "password" not in ended.out + ended.err
