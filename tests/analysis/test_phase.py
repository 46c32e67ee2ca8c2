"""Phase diagrams of a small sweep that was trained, and of records whose gaps are made from the law."""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from gahb_analysis import courses, plane, predictions
from mlflow.entities import Metric

from gahb.denoising.levels import Gap
from gahb.trial import Trial
from tests.helpers import TINY, TRIAL_TAGS, Ended, Place

S, BETA, C, T0 = 1.1, 0.7, 300.0, 3e4
SIZES = (4, 16, 64, 256, 1024)
BATCH = 32
RUN = Callable[..., Ended]


def n_star(images: float, factor: float = 1.0) -> float:
    return factor * C / (1 + (T0 / images) ** BETA)


def gap_at(n_train: int, images: int, factor: float) -> float:
    return 0.999 * (n_star(images, factor) / n_train) ** S


def add(
    place: Place,
    sizes: Sequence[int],
    images: int,
    *,
    running: int = 0,
    settled: int = 0,
    factors: Sequence[float] = (0.9, 1.1),
    **keys: Any,
) -> None:
    """Trials A and B of some N in the sweep `made`, with PSNR by the law, N* times a factor for each subset. They are
    `running` and have seen so many images, or have `settled` after so many, or have come to their end."""
    lengths = [BATCH * 16 * 2**k for k in range(30) if BATCH * 16 * 2**k < images] + [images]
    for n in sizes:
        for subset, factor in zip("AB", factors, strict=True):
            trial = Trial.of({**TINY, "n_train": n, "subset": subset, "images": images, **keys})
            tags = {
                **TRIAL_TAGS,
                "gahb.trial": json.dumps(trial.flat()),
                "gahb.subset": subset,
                "gahb.signature": trial.signature("x"),
                "gahb.sweep.made": "true",
            }
            name = f"16x16-N{n}-{subset}-{images}"
            run_id = place.writer.create("made", name, params={}, tags=tags)
            metrics = [
                Metric(key, value, 0, seen)
                for seen in lengths
                if seen <= (running or settled or images)
                for key, value in _psnrs(gap_at(n, seen, factor), seen).items()
            ]
            place.record.client.log_batch(run_id, metrics=metrics)
            if running:
                place.writer.start(run_id)
            else:
                place.writer.finish(run_id)


def _psnrs(gap: float, images: int) -> dict[str, float]:
    test = 20 - 1e4 / images
    return {"train_psnr": test + gap, "test_psnr": test, "psnr_gap": gap, "psnr_gap_db": 2 * gap}


def asked(command: RUN, place: Place, *options: str) -> Any:
    return command("gahb-analyze", "phase", "made", "--samples", "0", "--json", *options, *place.flags).json


def test_cells_line_and_law_of_a_record(command: RUN, place: Place) -> None:
    add(place, SIZES, 2**18)
    data = asked(command, place)
    cells = {(row["n_train"], row["images_seen"]): row for row in data["cells"]}
    assert len(cells) == len(SIZES) * 10
    cell = cells[64, 2**15]
    assert cell["psnr_gap"] == pytest.approx((gap_at(64, 2**15, 0.9) + gap_at(64, 2**15, 1.1)) / 2)
    assert cell["train_psnr"] - cell["test_psnr"] == pytest.approx(cell["psnr_gap"])
    assert (cell["trials"], cell["ends"], cells[64, 2**18]["ends"]) == (2, False, True)
    assert cell["excess"] is None and cell["memorised"] is None
    stars = {row["images_seen"]: row for row in data["n_star"]}
    mean = ((0.9**S + 1.1**S) / 2) ** (1 / S)  # of the gaps of two curves
    for seen, star in stars.items():
        if star["bound"] is None:
            assert star["n_star"] == pytest.approx(n_star(seen, mean), rel=2e-3)
            assert (star["low"], star["high"]) == (
                pytest.approx(n_star(seen, 0.9), rel=2e-3),
                pytest.approx(n_star(seen, 1.1), rel=2e-3),
            )
            assert star["missing"] == 0 and star["replicates"] == 2
    parameters = {row["parameter"]: row for row in data["law"]["parameters"] if row["law"] == "saturating"}
    for key, value in {"s": S, "c": C * mean, "beta": BETA, "t0": T0}.items():
        assert parameters[key]["value"] == pytest.approx(value, rel=0.01), key
        assert parameters[key]["low"] <= parameters[key]["value"] <= parameters[key]["high"]
    (residuals,) = [row for row in data["law"]["laws"] if row["law"] == "saturating"]
    assert residuals["longest_out"] < 1e-3
    assert [row["n_train"] for row in data["times"]] == [n for n in SIZES for _ in "AB"]
    assert {row["tau_mem"] for row in data["times"]} == {None}
    (exponent,) = data["exponents"]
    assert (exponent["time"], exponent["exponent"]) == ("tau_gen", 0), "test PSNR has the same course for all N"
    names = {file.name for file in place.record.artifacts(data["run_id"]).iterdir()}
    assert {"cells.csv", "n_star.csv", "laws.csv", "parameters.csv", "evaluations.csv", "phase.png"} <= names


def test_n_star_beyond_the_sweep_is_a_bound(place: Place) -> None:
    add(place, SIZES[:3], 2**18)
    trials, evaluations = plane.read(place.record, place.record.runs("trial", sweep="made"))

    def stars(threshold: float, gap: Gap) -> pd.DataFrame:
        return plane.stars_table(trials, evaluations, threshold, gap).set_index("images_seen")

    sigma, decibels = stars(1.0, Gap.SIGMA), stars(2.0, Gap.DB)
    assert sigma["bound"][2**18] == "> 64" and sigma.loc[2**18, ["n_star", "low", "train_psnr"]].isna().all()
    assert sigma["n_star"][2**12] == pytest.approx(decibels["n_star"][2**12]), "the made gap is twice as large in dB"
    assert stars(50, Gap.SIGMA)["bound"][512] == "< 4"


def test_a_sweep_under_way_says_what_is_missing(command: RUN, place: Place) -> None:
    ended = command("gahb-analyze", "phase", "made", *place.flags)
    assert ended.code == 2
    add(place, SIZES[1:4], 2**16)
    add(place, SIZES[4:], 2**16, running=2**14)
    data = asked(command, place)
    stars = {row["images_seen"]: row for row in data["n_star"]}
    assert stars[2**14]["missing"] == 0 and stars[2**15]["missing"] == 2
    assert {row["n_train"] for row in data["cells"] if row["images_seen"] == 2**14} == set(SIZES[1:])
    assert {row["n_train"] for row in data["times"]} == set(SIZES[1:4])
    ended = command("gahb-analyze", "phase", "made", "--samples", "0", *place.flags)
    assert "2 of 8 trials are not finished: 16x16-N1024-A-65536 (running), 16x16-N1024-B-65536 (running)" in ended.out
    assert "so many are missing after 32,768 (2), 65,536 (2) images" in ended.out
    assert "an evaluation on the way is not the end of a training of that length" in ended.out


def test_predictions_are_kept_and_held_against_what_comes(command: RUN, place: Place) -> None:
    add(place, SIZES[1:], 2**17)
    refused = command("gahb-analyze", "phase", "made", "--samples", "0", "--predict", "131e3", *place.flags)
    assert refused.code == 2 and "has reached 131,072 images" in refused.err
    lengths = ("--predict", str(2**19), "--predict", str(2**21))
    first = asked(command, place, *lengths)
    made = {(row["law"], row["images_seen"]): row for row in first["predictions"]}
    assert {seen for _, seen in made} == {2**19, 2**21} and {row["longest"] for row in made.values()} == {2**17}
    foretold = made["saturating", 2**19]
    assert foretold["n_star"] == pytest.approx(n_star(2**19), rel=0.02)
    assert foretold["low"] < foretold["n_star"] < foretold["high"] and foretold["measured_at"] is None
    kept = pd.read_csv(place.record.artifacts(first["run_id"]) / "predictions.csv")
    assert kept["n_star"].tolist() == pytest.approx([row["n_star"] for row in first["predictions"]])

    add(place, SIZES[1:], 2**19, running=2**18)
    under_way = {(row["law"], row["images_seen"]): row for row in asked(command, place)["predictions"]}
    assert under_way.keys() == made.keys() and not any(row["measured_at"] for row in under_way.values())
    for run in place.record.runs("trial", sweep="made"):
        if run.unfinished:
            trial = run.trial
            last = gap_at(trial.n_train, 2**19, 0.9 if trial.subset == "A" else 1.1)
            metrics = [Metric(key, value, 0, 2**19) for key, value in _psnrs(last, 2**19).items()]
            place.record.client.log_batch(run.run_id, metrics=metrics)
            place.writer.finish(run.run_id)
    later = {(row["law"], row["images_seen"]): row for row in asked(command, place)["predictions"]}
    right, wrong, to_come = later["saturating", 2**19], later["constant", 2**19], later["saturating", 2**21]
    assert right["made"] == foretold["made"] and right["measured"] == pytest.approx(n_star(2**19), rel=0.02)
    assert (right["measured_at"], right["inside"], wrong["inside"]) == (2**19, True, False)
    assert to_come["measured_at"] is None and to_come["inside"] is None
    ended = command("gahb-analyze", "phase", "made", "--samples", "0", *place.flags)
    measured, *told = ended.out.splitlines()[-5:]
    foretold, logarithmic = told[::2], told[1::2]
    assert measured.startswith("16×16: after 524,288 images the gap averaged over σ falls below 1 dB at N* = ")
    assert "(A and B: " in measured
    assert all(" (saturating law, fitted up to 131,072): N* = " in line for line in foretold)
    assert all(" (logarithmic law, fitted up to 131,072): N* = " in line for line in logarithmic)
    assert foretold[0].startswith("16×16: after 524,288 images") and foretold[0].endswith(": inside")
    assert foretold[1].startswith("16×16: after 2,097,152 images") and first["predictions"][0]["made"] not in ended.out
    (place.record.artifacts(first["run_id"]) / "predictions.csv").write_text("made,curve\n1,2\n")
    assert predictions.earlier(place.record, "made").empty, "a damaged table is left out"


@pytest.mark.parametrize(
    ("threshold", "sizes", "told"),
    [
        ("6", SIZES[2:], "the gap closes below the smallest N (64) at all 4 evaluations; launch with smaller n_train"),
        ("0.1", SIZES[:2], "the gap closes above the largest N (16) at all 4 evaluations; launch with larger n_train"),
    ],
)
def test_where_nothing_brackets_n_star_nothing_is_predicted_and_why_is_told(
    command: RUN, place: Place, threshold: str, sizes: Sequence[int], told: str
) -> None:
    add(place, sizes, 2**12)
    options = ("--samples", "0", "--threshold", threshold, "--window", "0.001", "100", "--predict", "8192")
    ended = command("gahb-analyze", "phase", "made", *options, "--json", *place.flags)
    assert ended.code == 0 and ended.json["predictions"] == [] and ended.json["law"]["laws"]
    assert f"16×16: no prediction for 8,192 images: {told}" in ended.err


def test_without_the_first_law_the_others_stand_in_the_table(command: RUN, place: Place) -> None:
    add(place, SIZES[1:3], 2**10)
    options = ("--samples", "0", "--window", "0.001", "100", "--predict", "8192", "--json")
    ended = command("gahb-analyze", "phase", "made", *options, *place.flags)
    assert {row["law"] for row in ended.json["predictions"]} >= {"constant"}
    assert "no prediction for 8,192 images: no saturating law can be fitted" in ended.err
    assert "predictions.csv has those of other laws: " in ended.err


def test_of_annealed_trials_of_several_lengths_the_ends_count(place: Place) -> None:
    add(place, SIZES[:2], 2**12)
    add(place, SIZES[:2], 2**14)
    add(place, SIZES[:2], 2**14, width=4)
    trials, evaluations = plane.read(place.record, place.record.runs("trial", sweep="made"))
    counted = plane.those_that_count(evaluations)
    seen = {curve: sorted(set(rows["images_seen"])) for curve, rows in counted.groupby("curve")}
    assert seen == {"16×16 width=8": [2**12, 2**14], "16×16 width=4": [2**k for k in range(9, 15)]}
    assert plane.stars_table(trials, counted, 1.0, Gap.SIGMA)["missing"].tolist() == [0] * 8
    assert not counted.duplicated([*plane.COURSE, "images_seen"]).any()


def test_a_trial_that_has_settled_counts_on_for_n_star(place: Place) -> None:
    constant = {"schedule": "constant", "until": "settled"}
    add(place, SIZES[:2], 2**16, **constant, settled=2**12)
    add(place, SIZES[2:4], 2**16, **constant)
    add(place, SIZES[2:4], 2**14, schedule="constant")  # the same course
    trials, evaluations = plane.read(place.record, place.record.runs("trial", sweep="made"))
    counted = plane.those_that_count(evaluations)
    assert evaluations["ends"].all() and counted["curve"].nunique() == 1
    assert sorted(counted.loc[counted["n_train"] == 64, "images_seen"]) == [2**k for k in range(9, 17) for _ in "AB"]
    assert set(counted.loc[counted["images_seen"] == 2**16, "n_train"]) == set(SIZES[2:4])
    stars = plane.stars_table(trials, counted, 8.0, Gap.SIGMA).set_index("images_seen")
    assert stars["missing"].tolist() == [0] * 8
    last = [(gap_at(n, 2**k, 0.9) + gap_at(n, 2**k, 1.1)) / 2 for n, k in ((16, 12), (64, 16))]
    assert last[0] < 8 and 4 < stars["n_star"][2**16] < 16


def test_a_law_is_fitted_for_each_condition_and_shared_by_widths() -> None:
    trials = [
        Trial.of({**TINY, "n_train": 4, "width": width, "alpha": alpha, "seed": seed, "images": images})
        for width in (4, 8) for alpha in (1.0, 2.0) for seed in (0, 1) for images in (640, 1280)
    ]  # fmt: skip
    assert plane._conditions(trials) == [f"alpha={trial.dataset.flat()['alpha']}" for trial in trials]
    assert set(plane._conditions(trials[:2])) == {"all curves"}


def test_evaluations_that_are_sampled_lie_a_factor_apart() -> None:
    assert courses.apart([512, 1024, 2048, 4096, 8192, 9600]) == [512, 1024, 2048, 4096, 9600]
    assert courses.apart({100, 150, 200, 300, 400}) == [100, 200, 400]
    assert courses.apart([]) == []


def course(tau_mem: Callable[[int], float], sizes: Sequence[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Trials and evaluations whose memorised fraction exceeds one half from τ_mem(N) on."""
    seen = [2**k for k in range(6, 14)]
    key = [("x", n, subset, 0) for n in sizes for subset in "AB"]
    trials = pd.DataFrame(key, columns=plane.COURSE).assign(state="finished")
    rows = [
        {**dict(zip(plane.COURSE, k, strict=True)), "images_seen": t, "test_psnr": 20 - 100 / t, "samples": 8,
         "memorised": 0.9 if t >= tau_mem(k[1]) else 0.1, "low": 0, "high": 1}
        for k in key for t in seen
    ]  # fmt: skip
    return trials, pd.DataFrame(rows)


def test_exponents_of_times_leave_out_an_n_where_memory_was_not_reached() -> None:
    times = courses.times_table(*course(lambda n: 32 * n, (2, 8, 32, 128, 512)))
    assert times["tau_mem"].dropna().tolist() == [64, 64, 256, 256, 1024, 1024, 4096, 4096]
    assert times["bound"].tolist()[-2:] == ["> 8192"] * 2 and set(times["tau_gen"]) == {256}
    rows = {row["time"]: row for row in courses.exponents_table(times).to_dict("records")}
    assert (rows["tau_gen"]["exponent"], rows["tau_gen"]["low"], rows["tau_gen"]["high"]) == (0, 0, 0)
    assert (rows["tau_mem"]["exponent"], rows["tau_mem"]["trials"], rows["tau_mem"]["censored"]) == (1, 8, 2)
    times.loc[7, ["tau_mem", "bound"]] = math.nan, "> 8192"
    again = courses.exponents_table(times).set_index("time").loc["tau_mem"]
    assert (again["trials"], again["censored"]) == (6, 3), "the quick one of an N tells nothing without the slow one"
    trials, evaluations = course(lambda n: 32 * n, (1, 2, 8))
    trials.loc[trials["n_train"] == 8, "state"] = "running"
    assert set(courses.times_table(trials, evaluations)["n_train"]) == {2}


def test_similarity_and_memory_of_trained_pairs(command: RUN, finished: Place) -> None:
    options = ("--samples", "4", "--json", *finished.flags)
    ended = command("gahb-analyze", "phase", "tiny", *options)
    cells = ended.json["cells"]
    sampled = [row["images_seen"] for row in cells if row["memorised"] is not None]
    assert sampled == [512, 1024, 2048, 4096, 9600], "N = 64 alone, at evaluations a factor 2 apart"
    pair = command("gahb-analyze", "pair", "16x16-N64-A", "16x16-N64-B", *options).json
    end = cells[-1]
    assert pair["diverged"] == 0
    assert end["excess"] == pytest.approx(pair["excess"]["mean"], abs=1e-5) and end["images_seen"] == 9600
    assert 0 <= end["memorised"] <= 1 and {row["n_train"] for row in ended.json["times"]} == {64}
    metrics = [
        run.metrics["psnr_gap"] for run in finished.record.runs("trial", sweep="tiny") if run.flat["n_train"] == 64
    ]
    assert end["psnr_gap"] == pytest.approx(np.mean(metrics))


def test_options_out_of_range_are_refused(command: RUN, place: Place) -> None:
    for options, word in ((("--samples", "1"), "--samples"), (("--window", "2", "1"), "--window")):
        ended = command("gahb-analyze", "phase", "made", *options, *place.flags)
        assert ended.code == 2 and word in ended.err
    add(place, SIZES[:1], 2**12)
    ended = command("gahb-analyze", "phase", "made", "--samples", "0", "--predict", "1e6", *place.flags)
    assert ended.code == 2 and "without one nothing can be predicted" in ended.err
    assert Gap.SIGMA.value in asked(command, place)["law"]["gap"]
