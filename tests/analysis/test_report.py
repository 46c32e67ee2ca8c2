import base64
import re
from collections.abc import Callable

import pytest
from gahb_analysis.report import KINDS

from gahb.grids import grid
from gahb.tracking import lookup
from tests.helpers import TINY, Ended, Place


def test_a_report_holds_tables_pictures_and_the_papers_numbers(
    command: Callable[..., Ended], ray_here: None, place: Place
) -> None:
    place.launch(grid({**TINY, "images": 320, "n_train": 4, "subset": ("A", "B")}))
    assert command("gahb-analyze", "curves", "tiny", *place.flags).code == 0
    report = ("gahb-analyze", "report", "tiny", "--json", *place.flags)
    data = command(*report).json
    names = ["16x16-N4-A", "16x16-N4-A and 16x16-N4-B"]
    assert not data["refused"] and data["shown"] == [
        "curves of tiny",
        "pairs of tiny",
        f"basis of {names[0]}",
        f"trajectories of {names[1]}",
        f"theory of {names[0]}",
    ]
    kinds = [run.tags["gahb.kind"] for run in lookup.analyses(place.record, "tiny")]
    assert kinds.count("curves") == 1, "it was there already"
    asked = len(kinds)
    assert command(*report).json["shown"] == data["shown"]
    assert len(lookup.analyses(place.record, "tiny")) == asked + 1, "nothing but the page is made again"
    page = (place.record.artifacts(data["run_id"]) / "report.html").read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 5 and all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    assert KINDS["pairs"].paper in page and "2 finished trials" in page and "<table" in page
    assert "gahb-analyze memorization tiny" in page and "gahb-analyze pairs tiny" not in page
    assert "http" not in page, "self-contained"


def test_the_newest_of_each_is_shown(command: Callable[..., Ended], finished: Place) -> None:
    for threshold in ("2", "3"):
        command("gahb-analyze", "scaling", "tiny", "--threshold", threshold, *finished.flags)
    data = command("gahb-analyze", "report", "tiny", "--json", *finished.flags).json
    assert data["shown"].count("scaling of tiny") == 1
    page = (finished.record.artifacts(data["run_id"]) / "report.html").read_text()
    newest = [run for run in lookup.analyses(finished.record, "tiny") if run.tags["gahb.kind"] == "scaling"][-1]
    picture = (finished.record.artifacts(newest.run_id) / "scaling.png").read_bytes()
    assert base64.b64encode(picture).decode() in page


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_names_a_command_that_exists(kind: str) -> None:
    from gahb_analysis.cli import app

    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert KINDS[kind].command.split()[0] in names


def test_it_goes_on_where_an_analysis_is_refused(command: Callable[..., Ended], ray_here: None, place: Place) -> None:
    place.launch(grid({**TINY, "images": 64, "n_train": 4}))
    for images in place.storage.rglob("images-*.npy"):
        images.unlink()
    data = command("gahb-analyze", "report", "tiny", "--json", *place.flags).json
    assert data["shown"] == ["curves of tiny"] and len(data["refused"]) == 2
    assert "Could not be computed" in (place.record.artifacts(data["run_id"]) / "report.html").read_text()
