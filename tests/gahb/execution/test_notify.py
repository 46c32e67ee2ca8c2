import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gahb.errors import UserError
from gahb.execution.notify import told
from tests.helpers import TINY, Ended, Place, finish, new_trial

Command = Callable[..., Ended]


@pytest.fixture
def listener(tmp_path: Path) -> tuple[str, Callable[[], list[Any]]]:
    """A command that keeps what it is told, and what it was told so far."""
    script, heard = tmp_path / "hear it.py", tmp_path / "heard"
    script.write_text("import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + '\\n')")
    read = lambda: [json.loads(line) for line in heard.read_text().splitlines()] if heard.exists() else []  # noqa: E731
    return f"{sys.executable} '{script}' {heard}", read


def test_a_diverging_trial_fails_with_a_reason_the_rest_goes_on_and_a_command_is_told(
    ray_here: None, command: Command, place: Place, listener: tuple[str, Callable[[], list[Any]]]
) -> None:
    notify, heard = listener
    flat = {**TINY, "images": 320, "subset": "A", "n_train": 1, "learning_rate": "1e30,2e-3"}
    settings = [f"{key}={value}" for key, value in flat.items()]
    ended = command("gahb-sweep", "launch", "demo", *settings, "--notify", notify, "--json", *place.flags)
    assert ended.code == 1, ended.err
    diverged, trained = ended.json["trials"]
    assert diverged["state"] == "failed" and "the loss was" in diverged["reason"]
    assert trained["state"] == "finished" and trained["reason"] is None
    failure, end = heard()
    assert failure["event"] == "failure" and end["event"] == "end"
    (failed,) = failure["trials"]
    assert (failed["state"], failed["reason"], failed["metrics"]) == ("failed", diverged["reason"], {})
    for message in (failure, end):
        assert message["sweep"] == "demo" and message["record"] == place.record.uri and message["reason"] is None
    assert end["states"] == {"failed": 1, "finished": 1} and end["failures"] == 1 and end["link"] is None
    assert failed in end["trials"] and end["trials"][1]["metrics"].keys() > {"psnr_gap"}


def test_an_end_before_its_time_has_a_reason(place: Place, listener: tuple[str, Callable[[], list[Any]]]) -> None:
    notify, heard = listener
    finish(place, new_trial(place))
    place.writer.fail(new_trial(place, "16x16-N1-B", "abcdefabcde0"), "of an earlier launch")
    for error in (KeyboardInterrupt(), UserError("no more room")):
        with pytest.raises(type(error)), told(notify, "s", place.record, place.store, print):
            raise error
    assert [(message["event"], message["reason"]) for message in heard()] == [
        ("end", "interrupted"),
        ("end", "no more room"),
    ], "nothing new has failed"


def test_a_command_that_fails_is_one_line_and_one_that_is_not_there_ends_before_anything_starts(
    place: Place, command: Command
) -> None:
    said: list[str] = []
    fails = f"{sys.executable} -c 'import sys; sys.exit(\"no mail today\")'"
    with told(fails, "s", place.record, place.store, said.append):
        assert not said
    assert said == [f"--notify {sys.executable} ended with status 1: no mail today"]
    for notify, message in (("no-such-command x", "no command 'no-such-command'"), ("'", "No closing quotation")):
        ended = command("gahb-sweep", "launch", "demo", "--notify", notify, *place.flags)
        assert ended.code == 2 and message in ended.err and len(ended.err.splitlines()) == 1
