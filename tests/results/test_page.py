"""The campaign's page: what its tables say, and nothing else."""

import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest

from gahb.grids import parse_overrides
from gahb.planning.sweeps import trials_of
from results.campaign import PARTS
from results.figure import draw, figure, stars
from results.gather import FOLDER
from results.page import BEGIN, END, PAGE, README, TEXT, Page, in_readme, interval, number, write

RUNS_INTO = re.compile(r"\|\n[^|\n]|[^\n]\n##|[^|\n]\n\| ")
"""A table or a heading next to a paragraph."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tables of one part."""
    stars = pd.DataFrame(
        {
            "curve": ["20×20", "20×20", "20×20 wide"],
            "images_seen": [4096, 65_536, 65_536],
            "n_star": [12.34, float("nan"), 45.6],
            "low": [10.0, float("nan"), float("nan")],
            "high": [15.0, float("nan"), float("nan")],
            "bound": [None, "> 3000", None],
            "train_psnr": [18.0, float("nan"), 19.5],
            "parameters": [100, 100, 400],
            "replicates": 2,
        }
    )
    crossings = stars[["n_star", "low", "high"]].head(1).assign(curve="20×20 images=4096")
    ran = pd.DataFrame(
        {
            "state": ["finished", "interrupted"],
            "data": "celeba40",
            "resolution": 20,
            "n_train": [10, 3000],
            "subset": ["A", "B"],
            "seed": 0,
            "images": [4096, 65_536],
            "device": ["a core", None],
            "network": ["unet width=32", "unet width=64"],
            "parameters": [100, 400],
            "receptive_field": [18, 18],
            "images_seen": [4096, 65_536],
            "images_reused": [0, 32_768],
            "planned_seconds": [3600, None],
            "seconds": [7200.0, 3600.0],
        }
    )
    foretold = {
        "law": "saturating",
        "n_star": 20.0,
        "low": 15.0,
        "high": 30.0,
        "made": "2026-11-30T00:22:41+00:00",
        "longest": 4096,
    }
    outcomes = [
        {**foretold, "images_seen": 65_536, "measured": 45.6, "inside": False},
        {**foretold, "images_seen": 10**9},
    ]
    for analysis in ("phase", "scaling"):
        (tmp_path / "faces" / analysis).mkdir(parents=True)
    pd.DataFrame(outcomes).to_csv(tmp_path / "faces" / "phase" / "outcomes.csv", index=False)
    stars.to_csv(tmp_path / "faces" / "phase" / "n_star.csv", index=False)
    crossings.to_csv(tmp_path / "faces" / "scaling" / "crossings.csv", index=False)
    ran.to_csv(tmp_path / "faces" / "trials.csv", index=False)
    return tmp_path


def test_a_value_has_its_interval_or_its_bound(folder: Path) -> None:
    assert list(Page(folder).stars("faces/phase/n_star")["star"]) == ["12.3 (10 … 15)", "> 3000", "45.6"]
    assert [number(v) for v in (1e6, 0.12345, -3.0, float("nan"))] == ["1,000,000", "0.123", "-3", "–"]
    assert interval({"bound": float("nan"), "n": 2, "low": 1, "high": 4}, "n") == "2 (1 … 4)"


def test_the_last_of_each_curve(folder: Path) -> None:
    page = Page(folder)
    assert list(page.last("faces/phase/n_star", 65_536)["images_seen"]) == [65_536, 65_536]
    assert list(page.last("faces/phase/n_star", 8192)["n_star"]) == [12.34]
    assert page.star("faces/phase/n_star", 8192)["star"] == "12.3 (10 … 15)"


def test_at_one_psnr_log_n_star_is_interpolated_and_outside_of_what_was_measured_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    pd.DataFrame(
        {
            "curve": "20×20",
            "images_seen": [1, 2, 4, 8],
            "n_star": [10.0, 1000.0, 2000.0, float("nan")],
            "low": [1.0, 100.0, 1000.0, float("nan")],
            "high": [100.0, 10_000.0, 3000.0, float("nan")],
            "bound": [None, None, None, "> 3000"],
            "train_psnr": [18.0, 20.0, 19.5, float("nan")],
        }
    ).to_csv(tmp_path / "faces" / "n_star.csv")
    assert list(Page(tmp_path).at_psnr("faces/n_star", 19)["star"]) == ["100 (10 … 1,000)"]
    assert list(Page(tmp_path).at_psnr("faces/n_star", 21)["star"]) == ["measured at 18.00 … 20.00 dB"]
    none = pd.read_csv(tmp_path / "faces" / "n_star.csv").tail(1)
    none.to_csv(tmp_path / "faces" / "none.csv")
    assert list(Page(tmp_path).at_psnr("faces/none", 19)["star"]) == ["> 3000"]


def test_networks_stand_with_their_sizes(folder: Path) -> None:
    for sweep in PARTS["architecture"].sweeps:
        (folder / sweep).symlink_to(folder / "faces")
    rows = Page(folder).networks(65_536, 18.0)
    assert list(rows["network"])[:2] == ["unet width=32", "unet width=64"] and set(rows["receptive_field"]) == {18}
    assert list(rows["equal"])[:2] == ["12.3 (10 … 15)", "measured at 19.50 … 19.50 dB"]


def test_a_matrix_has_the_order_of_its_table(tmp_path: Path) -> None:
    pd.DataFrame({"model": list("bbaa"), "images": list("baba"), "psnr": [1, 2, 3, 4]}).to_csv(tmp_path / "t.csv")
    lines = Page(tmp_path).matrix("t", "model", "images", "psnr").splitlines()
    assert lines[0] == "| model | b | a |" and lines[2:] == ["| b | 1.00 | 2.00 |", "| a | 3.00 | 4.00 |"]


def test_a_part_says_what_was_trained_on_what(folder: Path) -> None:
    (row,) = Page(folder).setup(PARTS["phase"]).to_dict("records")
    assert row == {
        "sweep": "faces",
        "data": "celeba40 20×20",
        "sizes": "10, 3,000",
        "subsets": "A and B",
        "seeds": "0",
        "images": "4,096 or 65,536",
        "device": "a core",
    }


def test_pairs_are_means_over_seeds_of_the_first_curve(tmp_path: Path) -> None:
    rows = {"curve": list("xxxy"), "n_train": [10, 10, 30, 10], "excess": [0.2, 0.4, 0.5, 0.9]}
    pd.DataFrame(rows).to_csv(tmp_path / "pairs.csv")
    assert Page(tmp_path).by_n("pairs")[["n_train", "excess"]].to_numpy().tolist() == [
        [10, pytest.approx(0.3)],
        [30, 0.5],
    ]


def test_costs_are_those_of_the_trials_and_plans_those_that_had_one(folder: Path) -> None:
    (row,) = Page(folder).cost(*PARTS).to_dict("records")
    assert (row["trials"], row["finished"], row["hours"], row["ratio"]) == (2, 1, 3.0, 2.0)
    assert row["images"] == 4096 + 32_768


def test_the_page_shows_what_has_run_and_names_no_part_that_has_not(folder: Path) -> None:
    text = write(folder)
    assert PARTS["phase"].title in text and "| 4,096 | 12.3 (10 … 15) | 18.00 |" in text
    assert not RUNS_INTO.search(text)
    assert not any(part.title in text for name, part in PARTS.items() if name != "phase")


def test_a_part_that_is_not_answered_whole_is_not_shown(folder: Path) -> None:
    shutil.rmtree(folder / "faces" / "scaling")
    assert "## " + PARTS["phase"].title not in write(folder)


def test_every_part_has_a_text() -> None:
    assert {file.name.removesuffix(".md.j2") for file in TEXT.iterdir()} == {"page", "answer", "readme", *PARTS}


@pytest.mark.parametrize("name", PARTS)
def test_every_launch_of_the_campaign_is_one_that_can_be_planned(name: str, tmp_path: Path) -> None:
    """Its settings make trials, whose names on the record the other commands use."""
    for command in PARTS[name].commands:
        words = shlex.split(re.sub(r"\$(FACES|ROOMS)", str(tmp_path), command))
        if words[1] == "launch":
            assert trials_of(words[2], parse_overrides(words[3 : words.index("--as")]))


@pytest.mark.skipif(not FOLDER.exists(), reason="the campaign has not come to a result yet")
def test_the_page_and_readme_are_what_the_tables_say() -> None:
    assert PAGE.read_text() == write()
    assert not RUNS_INTO.search(PAGE.read_text())
    assert README.read_text() == in_readme(README.read_text())


def test_in_readme_only_what_stands_between_the_marks_is_written(folder: Path) -> None:
    text = in_readme(f"# gahb\n{BEGIN}\nold\n{END}\nrest\n", folder)
    assert text.startswith(f"# gahb\n{BEGIN}\n") and text.endswith(f"\n{END}\nrest\n") and "old" not in text
    assert "12.3 (10 … 15)" in text


def test_every_curve_that_has_n_stars_is_in_the_picture(folder: Path) -> None:
    curves = stars(folder)
    assert list(curves) == ["faces, 20×20", "faces, 20×20 wide"] and list(curves["faces, 20×20"]["n_star"]) == [12.34]
    left, right = figure(curves).axes
    assert [container.get_label() for container in left.containers] == list(curves)
    assert [list(container[0].get_xdata()) for container in right.containers] == [[18.0], [19.5]]
    draw(folder)
    assert (folder / "transition.png").exists()


def test_predictions_are_told_by_whether_they_have_been_measured(folder: Path) -> None:
    page = Page(folder)
    assert list(page.predictions("faces", measured=True)["images_seen"]) == [65_536]
    assert list(page.predictions("faces", measured=False)["images_seen"]) == [10**9]
    assert "predicted 20 (15 … 30) and missed" in write(folder) and "| 2026-11-30 00:22 | 4,096 |" in write(folder)
    (folder / "faces/phase/outcomes.csv").rename(folder / "faces/phase/predictions.csv")
    assert len(page.predictions("faces", measured=True)) == 1


def test_what_a_longer_sweep_has_measured_stands_beside_the_predictions_and_lengths_of_the_shorter(
    folder: Path,
) -> None:
    (folder / "longer" / "phase").mkdir(parents=True)
    stars = {"curve": "20×20", "n_star": [11.0, 25.0], "low": [9.0, 20.0], "high": [13.0, 30.0], "bound": None}
    late = pd.DataFrame({**stars, "images_seen": [4096, 10**9], "train_psnr": [18.5, 21.0]})
    late.to_csv(folder / "longer" / "phase" / "n_star.csv", index=False)
    page = Page(folder)
    assert page.predictions("faces", "longer", measured=False).empty
    (own, other) = page.predictions("faces", "longer", measured=True).to_dict("records")
    assert (own["measured"], own["inside"]) == (45.6, False) and (other["measured"], other["inside"]) == (25.0, True)
    first, last = page.beside("faces/phase/n_star", "longer/phase/n_star").to_dict("records")
    assert (first["star"], first["longer"], first["train_psnr"]) == ("12.3 (10 … 15)", "11 (9 … 13)", 18.5)
    assert (last["images_seen"], last["star"], last["longer"]) == (10**9, "–", "25 (20 … 30)")
