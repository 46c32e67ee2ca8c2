"""The page of a report: what stands in it, with plotly and without, and what a record's names cannot do to it."""

import base64
import gzip
import html
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from gahb_analysis import interactive
from gahb_analysis.page import page
from gahb_analysis.scaling import crossings, scaling_table

from gahb.tracking.run import Kind, Run
from tests.helpers import Place, new_trial

HOSTILE = '</script><img src=x onerror=alert(1)><a href="javascript:alert(1)">N</a>'

TRIALS = pd.DataFrame(
    {
        "run_id": ["r1", "r2", "r3", "r4"],
        "curve": [HOSTILE] * 4,
        "resolution": 16,
        "parameters": 1000,
        "n_train": [1, 1, 100, 100],
        "subset": ["A", "B"] * 2,
        "seed": 0,
        "train_psnr": [23.0, 24.0, 19.0, 19.0],
        "test_psnr": [11.0, 12.0, 18.5, 18.7],
        "psnr_gap": [12.0, 12.0, 0.5, 0.3],
        "psnr_gap_db": [18.0, 18.0, 0.9, 0.7],
    }
)
TABLES = {"scaling": scaling_table(TRIALS), "crossings": crossings(TRIALS, 1.0), "trials": TRIALS}


@pytest.fixture
def scaling(place: Place, tmp_path: Path) -> tuple[Run, Path]:
    """An analysis `scaling` of a hostile name, and the folder with its artifacts."""
    new_trial(place)
    (run,) = place.record.runs(Kind.TRIAL)
    for stem, table in TABLES.items():
        table.to_csv(tmp_path / f"{stem}.csv", index=False)
    (tmp_path / "scaling.png").write_bytes(b"picture")
    return replace(run, name=HOSTILE, tags={"gahb.kind": "scaling"}, params={"gap": HOSTILE}), tmp_path


def drawn(text: str) -> list[dict[str, Any]]:
    """The figures of a page."""
    return [json.loads(found) for found in re.findall(r'<script type="application/json">(.*?)</script>', text)]


def test_with_plotly_one_bundle_draws_and_the_picture_is_there_for_print(scaling: tuple[Run, Path]) -> None:
    from plotly.offline import get_plotlyjs

    text = page("s", TRIALS, [scaling, scaling], {})
    (bundle,) = re.findall(r'<script id="bundle" type="text/plain">(.*?)</script>', text)
    assert gzip.decompress(base64.b64decode(bundle)).decode() == get_plotlyjs()
    assert len(drawn(text)) == 2 and text.count(base64.b64encode(b"picture").decode()) == 2
    assert len(text) < 3_000_000


def test_without_plotly_pictures_stand_alone(scaling: tuple[Run, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    text = page("s", TRIALS, [scaling], {})
    assert base64.b64encode(b"picture").decode() in text
    assert "<script" not in text and len(text) < 20_000


def test_contents_lead_to_the_sections(scaling: tuple[Run, Path]) -> None:
    text = page("s", TRIALS, [scaling, scaling], {"basis of x": "no images"}, ["2 trials are not finished"])
    anchors = re.findall(r'href="#([^"]+)"', text)
    assert anchors == ["analysis-0", "analysis-1", "trials"]
    assert all(f'id="{anchor}"' in text for anchor in anchors)
    assert "basis of x: no images" in text and "2 trials are not finished" in text


def test_it_opens_with_the_answers(scaling: tuple[Run, Path], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("pairs")
    bounds = {"bound": None, "bound_centered": "< 4"}
    crossed = {"curve": "16×16", "resolution": 16, "n_overtake": 12.87, "n_overtake_centered": np.nan, **bounds}
    pd.DataFrame([crossed]).to_csv(folder / "n_overtake.csv", index=False)
    pairs = replace(scaling[0], name="pairs of s", tags={"gahb.kind": "pairs"}), folder
    opening = html.unescape(page("s", TRIALS, [pairs, scaling], {})).partition("Contents")[0]
    n_star, n_cross = re.findall('<p class="answer">(.*)</p>', opening)
    assert n_star == f"{HOSTILE}: the gap averaged over σ falls below 1 dB at N* = 28.9 (A and B: 22.2 … 36.6)"
    assert n_cross.startswith("16×16: ") and n_cross.endswith("at N× = 12.9 (means removed: N× < 4)")


def test_names_of_a_record_are_text_wherever_they_stand(scaling: tuple[Run, Path]) -> None:
    text = page(HOSTILE, TRIALS, [scaling], {HOSTILE: HOSTILE}, [HOSTILE])
    assert "<img src=x" not in text and '<a href="java' not in text and text.count("&lt;img src=x") >= 8
    (figure,) = drawn(text)
    names = {trace["name"] for trace in figure["data"]}
    assert not any(letter in name for name in names for letter in '<>"'), "plotly reads HTML"


def test_tables_that_are_none_leave_the_picture(scaling: tuple[Run, Path], capfd: pytest.CaptureFixture[str]) -> None:
    run, folder = scaling
    (folder / "crossings.csv").write_text("a,b\n1,2\n")
    text = page("s", TRIALS, [(run, folder)], {})
    assert not drawn(text) and base64.b64encode(b"picture").decode() in text
    told = capfd.readouterr().err
    assert "no interactive figure of scaling" in told and "no answer of scaling in words" in told


def test_figures_show_the_numbers_of_their_tables() -> None:
    gap, star = interactive.scaling(TABLES).data
    assert list(gap.x) == [1, 100] and list(gap.y) == [12.0, pytest.approx(0.4)]
    assert star.x[0] == TABLES["crossings"]["n_star"][0] and star.y[0] == 1.0
    assert star.text[0].endswith("(A and B: 22.2 … 36.6)") and "<" not in star.text[0]

    levels = pd.DataFrame({"curve": "c", "sigma": [1.0, 0.1], "input_psnr": [0.0, 20.0]})
    both = [levels.assign(train_psnr=20.0 + i, test_psnr=10.0 + i) for i in range(2)]
    train, test = interactive.curves({"curves": pd.concat(both)}).data
    assert list(train.y) == [20.5, 20.5] and list(test.y) == [10.5, 10.5] and list(test.x) == [0, 20]

    cosine = np.linspace(-0.5, 1, 20)
    samples = pd.DataFrame({"pair": "p", "converged": [True] * 19 + [False], "cosine": cosine, "closest_train": 1.0})
    alone = interactive.pairs({"samples": samples})
    assert [sum(trace.y) for trace in alone.data] == [19, 19], "those that converged"
    both = interactive.pairs({"samples": pd.concat([samples, samples.assign(pair="<q>")])})
    assert [frame.name for frame in both.frames] == ["p", "&lt;q&gt;"]
