from collections.abc import Callable

import pytest

from gahb.sentences import three_digits
from gahb.tracking.run import Kind
from tests.helpers import TINY, Ended, Place

SHORT = {**TINY, "images": 32 * 100, "n_train": "1,64"}
"""A trial of less than a second, whose gap passes 0.2 dB at two or three images."""


def words(settings: dict[str, object]) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items()]


def test_a_search_finds_n_star_and_typed_again_trains_nothing(
    command: Callable[..., Ended], ray_here: None, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["demo", *words(SHORT), "--gap", "0.2", "--within", "8", *place.flags]
    planned = command("gahb-sweep", "plan", *asked, "--json").json["trials"]
    assert [(row["n_train"], row["subset"], row["state"]) for row in planned] == [(8, "A", "new"), (8, "B", "new")]
    both = command(
        "gahb-sweep", "plan", "demo", *words({**SHORT, "width": "4,8"}), "--gap", "1", "--json", *place.flags
    )
    assert {row["name"] for row in both.json["trials"]} >= {"16x16-N8-A-width4", "16x16-N8-B-width4"}
    ended = command("gahb-sweep", "search", *asked, "--json")
    (row,) = ended.json["curves"]
    assert ended.code == 0 and row["curve"] == "16×16" and row["reason"] is None
    assert row["low"] < row["n_star"] < row["high"] <= 8 * row["low"] and row["bound"] is None
    runs = place.record.runs(Kind.TRIAL, sweep="demo-search")
    assert {run.state for run in runs} == {"finished"} and row["trials"] == len(runs) >= 4
    assert row["images_spent"] == len(runs) * SHORT["images"] and row["grid_images"] == 6 * SHORT["images"]
    assert {run.flat["subset"] for run in runs if run.flat["n_train"] == 8} == {"A", "B"}
    assert "round 1: 16×16 at N = 8, over the range" in ended.err and "round 2: " in ended.err

    monkeypatch.setattr("gahb.execution.ray_cluster.run_trials", None)  # would fail if it were called
    again = command("gahb-sweep", "search", *asked)
    assert again.code == 0 and "round" not in again.err and f"{row['n_star']:.2f}" in again.out
    interval = f"(95 % {three_digits(row['low'])} … {three_digits(row['high'])})"
    told = f"16×16: the gap averaged over σ falls below 0.2 dB at N* = {three_digits(row['n_star'])} {interval}, found "
    cost = f"with {row['images_spent']:,} images; a grid of such steps takes {row['grid_images']:,}"
    assert again.out.splitlines()[-1] == told + cost
    planned = command("gahb-sweep", "plan", *asked)
    assert planned.code == 0 and planned.out == again.out
    assert command("gahb-sweep", "plan", *asked, "--json").json == {"trials": []}


def test_a_failed_trial_ends_the_search_for_its_curve(
    command: Callable[..., Ended], ray_here: None, place: Place
) -> None:
    settings = {**SHORT, "learning_rate": "1e30", "images": 640}
    ended = command("gahb-sweep", "search", "demo", *words(settings), "--gap", "1", "--json", *place.flags)
    (row,) = ended.json["curves"]
    assert ended.code == 1 and "the loss was" in row["reason"] and row["n_star"] is None
    assert ended.err.count("round") == 1


def test_a_search_by_similarity_compares_the_pairs_that_the_record_lacks(
    command: Callable[..., Ended], copied: Place
) -> None:
    asked = ["demo", *words({**TINY, "n_train": "1,64"}), "--similarity", "0.5", "--within", "64", *copied.flags]
    ended = command("gahb-sweep", "search", *asked, "--json")
    (row,) = ended.json["curves"]
    assert ended.code == 0 and 1 < row["n_star"] < 64 and row["images_spent"] == 0 and row["trials"] == 4
    assert ended.err.count("compared ") == 2 and len(copied.record.runs("pair")) == 2
    assert all("excess_mean" in run.metrics for run in copied.record.runs("pair"))
    again = command("gahb-sweep", "search", *asked, "--json")
    assert again.json == ended.json and again.err == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "say what N* is: either --gap DB or --similarity COSINE"),
        (["--gap", "1", "--similarity", "0.5"], "say what N* is: either --gap DB or --similarity COSINE"),
        (["--similarity", "0.5", "--average", "db"], "--average is of the PSNR gap, and goes with --gap"),
        (["--gap", "1", "--within", "1"], "--within 1: must be above 1"),
        (["--gap", "0"], "Invalid value for '--gap'"),
        (["--similarity", "1"], "Invalid value for '--similarity'"),
        (["--gap", "1", "n_train=5"], "has n_train=5 only; give the least and the largest"),
        (["--gap", "1", "--as", "a b"], "the name 'a b' of a sweep: letters, digits, - and _ only"),
    ],
)
def test_options_that_do_not_go_together_end_in_one_line(
    command: Callable[..., Ended], place: Place, options: list[str], message: str
) -> None:
    ended = command("gahb-sweep", "search", "demo", *options, *place.flags)
    assert ended.code == 2 and message in ended.err and len(ended.err.strip().splitlines()) == 1
    assert not (place.folder / "record.db").exists()
