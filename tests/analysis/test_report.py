import base64
import html
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from gahb_analysis.catalog import ANALYSES
from gahb_analysis.page import described, usage
from gahb_analysis.report import answers, newest

from gahb.execution.analysis import Question
from gahb.grids import grid
from gahb.tracking import lookup
from tests.helpers import TINY, Ended, Place


@pytest.fixture
def imageless(copied: Place) -> Place:
    """A finished sweep without the images of its data set: of its models nothing can be said, of its record all."""
    for images in copied.storage.rglob("images-*.npy"):
        images.unlink()
    return copied


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
    assert len(pictures) == 6 and all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    assert html.escape(described("pairs").paper) in page and "2 finished trials" in page and "<table" in page
    assert "gahb-analyze memorization tiny" in page and "gahb-analyze pairs tiny" not in page
    assert re.findall(r'(?:src|href)="(?!data:|#)', page) == [], "self-contained"


def test_what_was_asked_with_other_settings_is_asked_again_and_not_shown(
    command: Callable[..., Ended], imageless: Place
) -> None:
    def scale(*options: str) -> None:
        assert command("gahb-analyze", "scaling", "tiny", *options, *imageless.flags).code == 0

    def shown() -> tuple[str, list[str]]:
        data = command("gahb-analyze", "report", "tiny", "--json", *imageless.flags).json
        return (imageless.record.artifacts(data["run_id"]) / "report.html").read_text(), data["shown"]

    scale("--threshold", "2")
    shown()
    scale("--threshold", "3")
    page, names = shown()
    runs = [run for run in lookup.analyses(imageless.record, "tiny") if run.kind == "scaling"]
    pictures = {run.params["threshold"]: imageless.record.artifacts(run.run_id) / "scaling.png" for run in runs}
    assert names.count("scaling of tiny") == 1 and pictures.keys() == {"1.0", "2.0", "3.0"}
    inside = {key: base64.b64encode(picture.read_bytes()).decode() in page for key, picture in pictures.items()}
    assert [key for key, there in inside.items() if there] == ["1.0"]


@pytest.mark.parametrize("kind", ANALYSES)
def test_how_an_analysis_is_asked_can_be_typed(kind: str, command: Callable[..., Ended], place: Place) -> None:
    ended = command("gahb-analyze", *usage(kind, "tiny").split(), *place.flags)
    assert ended.code == 2 and re.search("no (sweep|trial) '", ended.err), "nothing else is wrong with it"


def test_it_goes_on_where_an_analysis_is_refused(command: Callable[..., Ended], imageless: Place) -> None:
    data = command("gahb-analyze", "report", "tiny", "--json", *imageless.flags).json
    assert data["shown"] == ["curves of tiny", "scaling of tiny"]
    assert {name.partition(" ")[0] for name in data["refused"]} == {
        "basis",
        "memorization",
        "pairs",
        "theory",
        "trajectories",
    }
    assert "Could not be computed" in (imageless.record.artifacts(data["run_id"]) / "report.html").read_text()


SWEEP = """
from gahb.grids import grid
from gahb.plugins import Stated

ANALYSES = [
    Stated("scaling", {"threshold": 2.0}),
    Stated("basis", {"sigma": 0.3, "vectors": "0:3"}, of={"n_train": 4}),
    Stated("basis", {"sigma": 0.04}, of={"n_train": 8}, together=True),
    Stated("theory", of={"n_train": 999}),
]


def trials(overrides=None):
    return grid({**TINY, "n_train": (4, 8), "subset": ("A", "B"), "seed": (0, 1)}, overrides)
"""


def stated_sweep(folder: Path, name: str, text: str = SWEEP, **changes: object) -> Path:
    file = folder / f"{name}.py"
    file.write_text(f"TINY = { {**TINY, **changes} }\n{text}")
    return file


def test_a_sweep_states_its_analyses_and_is_known_under_another_name(
    command: Callable[..., Ended], ray_here: None, place: Place
) -> None:
    file = stated_sweep(place.folder, "stating", images=64)
    launch = ("gahb-sweep", "launch", str(file), "subset=A", *place.flags)
    assert command(*launch, "--as", "mine").code == 0
    assert not command("gahb-analyze", "report", "mine", "--json", *place.flags).json["refused"]
    found = {kind: [run for run in lookup.analyses(place.record, "mine") if run.kind == kind] for kind in ANALYSES}
    assert [run.params["threshold"] for run in found["scaling"]] == ["2.0"]
    n_train = {run.run_id: run.flat["n_train"] for run in lookup.finished_trials(place.record, "mine")}
    about = {
        run.params["sigma"]: (run.params["vectors"], [n_train[run_id] for run_id in run.links])
        for run in found["basis"]
    }
    assert about == {"0.3": ("0:3", [4]), "0.04": ("0:19", [8])}
    assert len(found["theory"]) == 1, "none of the trials are those that it states, so the default stands"
    page = next(place.record.artifacts(run.run_id) for run in found["report"]) / "report.html"
    assert "sigma = 0.3" in page.read_text()

    asked = len(lookup.analyses(place.record, "mine"))
    shown = command("gahb-analyze", "report", "mine", "--json", *place.flags).json["shown"]
    assert len(lookup.analyses(place.record, "mine")) == asked + 1, "nothing but the page is made again"
    assert sum(name.startswith("basis of") for name in shown) == 2


def test_what_a_sweep_states_wrongly_is_told(command: Callable[..., Ended], copied: Place) -> None:
    wrong = {
        "not_stated": ('["basis"]', "Stated"),
        "no_analysis": ('[Stated("bases")]', "did you mean 'basis'?"),
        "no_option": ('[Stated("basis", {"sigmas": 0.1})]', "did you mean 'sigma'?"),
    }
    for name, (stated, told) in wrong.items():
        text = re.sub(r"ANALYSES = \[.*?\n\]", f"ANALYSES = {stated}", SWEEP, flags=re.DOTALL)
        file = stated_sweep(copied.folder, name, text)
        trained = ("subset=A", "n_train=1", "seed=0")
        assert command("gahb-sweep", "launch", str(file), *trained, "--as", name, *copied.flags).code == 0
        ended = command("gahb-analyze", "report", name, *copied.flags)
        assert ended.code == 2 and told in ended.err.splitlines()[-1], ended.err


def test_settings_that_an_older_analysis_does_not_have_were_the_defaults(finished: Place) -> None:
    run = lookup.find(finished.record, "16x16-N1-A")
    old = replace(run, tags={"gahb.kind": "basis", "gahb.of.0": run.run_id}, params={"image": "0", "sigma": "0.15"})
    assert answers(old, "basis", Question({"runs": [run.run_id]}, [run]))
    assert not answers(old, "basis", Question({"runs": [run.run_id], "vectors": "0:4"}, [run]))
    assert not answers(old, "basis", Question({"runs": [run.run_id], "sigma": 0.04}, [run]))


def test_a_pair_that_pairs_has_with_the_same_settings_is_not_shown_beside_it(finished: Place) -> None:
    a, b = (lookup.find(finished.record, f"16x16-N64-{subset}") for subset in "AB")
    both = {"gahb.of.0": a.run_id, "gahb.of.1": b.run_id}
    pairs = replace(a, name="pairs of tiny", tags={"gahb.kind": "pairs", **both}, params={"samples": "64", "seed": "0"})
    pair = replace(pairs, name="a pair", tags={"gahb.kind": "pair", **both})
    other = replace(pair, name="another", params={"samples": "8", "seed": "0"})
    asked = [("pairs", Question({"sweep": "tiny"}, [a, b]))]
    assert newest([pair, other, pairs], asked) == [pairs, other]
    assert newest([pair, other], asked) == [pair, other]
