import base64
import html
import re
from collections.abc import Callable

import pytest
from gahb_analysis.catalog import ANALYSES
from gahb_analysis.report import described, usage

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
    assert html.escape(described("pairs").paper) in page and "2 finished trials" in page and "<table" in page
    assert "gahb-analyze memorization tiny" in page and "gahb-analyze pairs tiny" not in page
    assert "http" not in page, "self-contained"


def test_what_was_asked_with_other_settings_is_asked_again_and_not_shown(
    command: Callable[..., Ended], finished: Place
) -> None:
    def scale(*options: str) -> None:
        assert command("gahb-analyze", "scaling", "tiny", *options, *finished.flags).code == 0

    def shown() -> tuple[str, list[str]]:
        data = command("gahb-analyze", "report", "tiny", "--json", *finished.flags).json
        return (finished.record.artifacts(data["run_id"]) / "report.html").read_text(), data["shown"]

    scale("--threshold", "2")
    shown()
    scale("--threshold", "3")
    page, names = shown()
    runs = [run for run in lookup.analyses(finished.record, "tiny") if run.kind == "scaling"]
    pictures = {run.params["threshold"]: finished.record.artifacts(run.run_id) / "scaling.png" for run in runs}
    assert names.count("scaling of tiny") == 1 and pictures.keys() >= {"1.0", "2.0", "3.0"}
    inside = {key: base64.b64encode(picture.read_bytes()).decode() in page for key, picture in pictures.items()}
    assert [key for key, there in inside.items() if there] == ["1.0"]


@pytest.mark.parametrize("kind", ANALYSES)
def test_how_an_analysis_is_asked_can_be_typed(kind: str, command: Callable[..., Ended], place: Place) -> None:
    ended = command("gahb-analyze", *usage(kind, "tiny").split(), *place.flags)
    assert ended.code == 2 and re.search("no (sweep|trial) '", ended.err), "nothing else is wrong with it"


def test_it_goes_on_where_an_analysis_is_refused(command: Callable[..., Ended], ray_here: None, place: Place) -> None:
    place.launch(grid({**TINY, "images": 64, "n_train": 4}))
    for images in place.storage.rglob("images-*.npy"):
        images.unlink()
    data = command("gahb-analyze", "report", "tiny", "--json", *place.flags).json
    assert data["shown"] == ["curves of tiny"] and len(data["refused"]) == 2
    assert "Could not be computed" in (place.record.artifacts(data["run_id"]) / "report.html").read_text()
