"""What `gahb-sweep ui` refuses before it starts anything; that it starts is shown by tests/test_ui.py."""

import socket
from collections.abc import Callable

from tests.helpers import Ended, Place, new_trial

Command = Callable[..., Ended]


def test_there_must_be_a_record_and_the_sweep_in_it(command: Command, place: Place) -> None:
    ended = command("gahb-sweep", "ui", *place.flags)
    assert ended.code == 2 and "launch a sweep first" in ended.err and not (place.folder / "record.db").exists()
    new_trial(place)
    ended = command("gahb-sweep", "ui", "other", *place.flags)
    assert ended.code == 2 and "no sweep 'other'" in ended.err


def test_the_port_must_be_free(command: Command, place: Place) -> None:
    new_trial(place)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = command("gahb-sweep", "ui", "s", "--port", str(taken.getsockname()[1]), *place.flags)
    assert ended.code == 2 and "choose another with --port" in ended.err and not ended.out


def test_an_older_sweep_opens_without_its_views(place: Place) -> None:
    new_trial(place)
    assert place.record.url("s").endswith("/runs?workflowType=machine_learning")
    assert place.record.url("none") == "#/experiments"
