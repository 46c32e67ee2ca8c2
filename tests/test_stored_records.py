"""A record and its storage as version 0.1.0 left them: five trials, one of them interrupted, analyses, a calibration
and an imported model."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gahb.planning import calibration
from gahb.tracking import lookup
from gahb.trial import Trial
from tests.helpers import Ended, Place

ARCHIVE = Path(__file__).parent / "fixtures" / "record-0.1.0.tar.xz"
THERE = "/tmp/before-0.1.0"
"""Where it was made."""

SIGNATURES = {
    "16x16-N1-A": "efe092c412c1",
    "16x16-N1-B": "9c88ea86d470",
    "16x16-N4-A": "ee2ab498a837",
    "16x16-N4-B": "9d0f57b68943",
    "16x16-N16-A": "6de7e457884f",
}


@pytest.fixture
def old(tmp_path: Path) -> Place:
    """The record, which knows nothing of where it was."""
    place = Place(tmp_path)
    with tarfile.open(ARCHIVE) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 has it
        archive.extractall(tmp_path)
    for column in ("runs.artifact_uri", "experiments.artifact_location"):
        table, _, name = column.partition(".")
        place.execute(f"UPDATE {table} SET {name} = replace({name}, ?, ?)", THERE, str(tmp_path))
    return place


def test_its_trials_are_those_of_today(old: Place, command: Callable[..., Ended]) -> None:
    rows = command("gahb-sweep", "status", "before", "--json", *old.flags).json["trials"]
    assert {row["name"]: row["state"] for row in rows} == {
        **dict.fromkeys(SIGNATURES, "finished"),
        "16x16-N16-A": "interrupted",
    }
    for name, signature in SIGNATURES.items():
        run = lookup.find(old.record, name)
        assert run.signature == signature == run.trial.signature(run.tags["gahb.data_hash"])
        assert run.trial.dataset.hash(old.store) != run.tags["gahb.data_hash"]  # of 8 bits then, and 16 now


def test_its_runs_are_shown_compared_and_reported(old: Place, command: Callable[..., Ended]) -> None:
    shown = command("gahb-sweep", "show", "16x16-N4-A", "--json", *old.flags).json
    assert shown["metrics"]["psnr_gap"] == pytest.approx(0.28, abs=5e-3) and len(shown["history"]["psnr_gap"]) == 4
    assert "try 1 from step 0" in command("gahb-sweep", "logs", "16x16-N4-A", *old.flags).out
    pair = command("gahb-analyze", "pair", "16x16-N4-A", "16x16-N4-B", "--samples", "4", "--json", *old.flags).json
    (before,) = [
        run for run in lookup.analyses(old.record, "before") if run.kind == "pair" and run.run_id != pair["run_id"]
    ]
    assert pair["closest_train"]["mean"] == pytest.approx(before.metrics["closest_train_mean"], abs=1e-3)
    assert pair["swap_gap"] == pytest.approx(before.metrics["swap_gap"], abs=1e-4)
    imported = command(
        "gahb-analyze", "pair", "theirs", "theirs", "--samples", "2", "--force", "--json", *old.flags
    ).json
    assert imported["samples"] == 2


def test_its_weight_histories_and_rates_are_read(old: Place, command: Callable[..., Ended], ray_here: None) -> None:
    found = command("gahb-analyze", "memorization", "before", "--samples", "2", "--json", *old.flags).json
    assert [row["name"] for row in found["memorization"]] == ["16x16-N4-A", "16x16-N4-B"]
    (device,) = calibration.devices(old.record.runs("trial", "calibration"))
    assert {rate.source for rate in device.rates} == {"runs", "calibration"}


def test_its_histories_make_a_phase_diagram(old: Place, command: Callable[..., Ended]) -> None:
    options = ("--samples", "0", "--gap", "db", *old.flags)
    cells = command("gahb-analyze", "phase", "before", "--json", *options).json["cells"]
    assert {row["n_train"] for row in cells} == {1, 4}, "the third is longer, and has not come to its end"
    for row in cells:
        assert row["psnr_gap_db"] > row["psnr_gap"], "of the PSNR curves that it left"
    printed = command("gahb-analyze", "phase", "before", *options).out
    assert "1 of 5 trials are not finished: 16x16-N16-A" in printed


def test_a_trial_whose_images_are_drawn_otherwise_now_does_not_go_on(old: Place, command: Callable[..., Ended]) -> None:
    trial = lookup.find(old.record, "16x16-N16-A").trial
    assert isinstance(trial, Trial) and trial.images == 32_000
    for what in ("16x16-N16-A", "before"):
        ended = command("gahb-sweep", "retry", what, "--json", *old.flags)
        assert ended.code == 2 and len(ended.err.splitlines()) == 1
        assert "another version of gahb drew" in ended.err and "launch the sweep anew" in ended.err
