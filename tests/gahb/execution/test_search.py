import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gahb import hardware
from gahb.denoising.levels import Gap
from gahb.errors import UserError
from gahb.execution import spots, worker_types
from gahb.execution.search import EXCESS, PAIR, Criterion, State, curves_of
from gahb.grids import grid
from gahb.planning.placement import WorkerType
from gahb.planning.search import Unit, grid_sizes
from gahb.tracking.run import PSNRS, Tag, link, member_of
from gahb.trial import Trial
from tests.helpers import TINY, TRIAL_TAGS, Place

RANGE = grid({**TINY, "n_train": (1, 1000), "subset": ("A", "B")})
GAP = Criterion(1.0)


def state(place: Place, trials: Sequence[Trial] = RANGE, criterion: Criterion = GAP, within: float = 1.3) -> State:
    return State(trials, "found", criterion, within, place.store, place.record)


def made(place: Place, trial: Trial, sweep: str = "found") -> str:
    """A scheduled run of a trial."""
    data_hash = trial.dataset.hash(place.store)
    tags: dict[str, str] = {
        Tag.SIGNATURE: trial.signature(data_hash),
        Tag.TRIAL: json.dumps(trial.flat()),
        Tag.DATA_HASH: data_hash,
        Tag.SUBSET: trial.subset,
    }
    return place.writer.create(sweep, "a trial", params={}, tags={**TRIAL_TAGS, **tags, **member_of(sweep)})


def trained(place: Place, trial: Trial, sweep: str = "found") -> str:
    """The run of a trial as if it had been trained, whose gap is 1 dB at N = 50; one in decibels at N = 100."""
    run_id = made(place, trial, sweep)
    gap = (50 / trial.n_train) ** (1.05 if trial.subset == "A" else 0.95)
    place.writer.log_metrics(run_id, {**dict.fromkeys(PSNRS, 20.0), "psnr_gap": gap, "psnr_gap_db": 2 * gap})
    place.writer.finish(run_id)
    return run_id


def searched(place: Place, seed: int | None = None) -> list[Unit]:
    """The units of a whole search; with a seed, the trials of a round end in random order, and one of them only after
    the search was interrupted and typed again."""
    units: list[Unit] = []
    while new := state(place).next(room=1):
        units += new
        trials = state(place).trials(new)
        if seed is not None:
            random.Random(seed + len(units)).shuffle(trials)
            trained(place, trials[0])
            interrupted = made(place, trials[1])
            place.writer.interrupt(interrupted)
            (again,) = state(place).next(room=1)
            assert again[:3] == new[0][:3] and again.why == "to go on"
        for trial in trials[seed is not None :]:
            trained(place, trial)
    return units


def test_an_interrupted_search_goes_on_to_the_same_trials(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    units = searched(Place(tmp_path / "one"))
    assert units[0].n_train == round(math.sqrt(1000)) and 2 <= len(units) <= 6
    assert searched(Place(tmp_path / "other"), seed=0) == units
    row = state(Place(tmp_path / "one")).row("16×16")
    assert row["low"] <= 50 <= row["high"] <= 1.3 * row["low"] and row["bound"] is None
    assert row["trials"] == 2 * len(units) and row["images_spent"] == 2 * len(units) * TINY["images"]
    assert row["images_known"] == 0 and row["grid_images"] == 2 * len(grid_sizes(1, 1000, 1.3)) * TINY["images"]


def test_what_other_sweeps_have_trained_counts_and_was_not_spent(place: Place) -> None:
    for trial in grid({**TINY, "n_train": (40, 48, 60), "subset": ("A", "B")}):
        trained(place, trial, "another")
    for changes in ({"images": 320}, {"width": 16}, {"dataset": "disks"}, {"learning_rate": 1e-3}):  # other curves
        trained(place, Trial.of({**TINY, "n_train": 700, **changes}), "another")
    found = state(place)
    assert found.next(room=1) == []
    row = found.row("16×16")
    assert row["trials"] == 6 and row["images_spent"] == 0 and row["images_known"] == 6 * TINY["images"]
    assert row["low"] <= 50 <= row["high"]


def test_either_average_of_the_gap_may_be_sought(place: Place) -> None:
    for trial in grid({**TINY, "n_train": (30, 40, 50, 60, 80, 110, 140), "subset": ("A", "B")}):
        trained(place, trial)
    by_sigma, by_db = (state(place, criterion=Criterion(1.0, gap)).row("16×16")["n_star"] for gap in Gap)
    assert by_sigma == pytest.approx(50, rel=0.1) and by_db == pytest.approx(100, rel=0.1)


def test_similarity_is_that_of_pairs_which_the_record_has_compared(place: Place) -> None:
    criterion = Criterion(0.5, None)
    excess = {20: 0.1, 60: 0.4, 90: 0.6, 200: 0.8}
    pairs = {n: [trained(place, t) for t in grid({**TINY, "n_train": n, "subset": ("A", "B")})] for n in excess}
    found = state(place, criterion=criterion, within=3)
    assert {frozenset((a.run_id, b.run_id)) for a, b in found.not_compared()} == set(map(frozenset, pairs.values()))
    assert state(place).not_compared() == [] and found.row("16×16")["n_star"] is None
    for n_train, runs in pairs.items():
        tags: dict[str, str] = {Tag.KIND: PAIR, **{link(i): run for i, run in enumerate(runs)}}
        analysis = place.writer.create("found-analysis", "a pair", params={}, tags=tags)
        place.writer.log_metrics(analysis, {EXCESS: excess[n_train]})
        place.writer.finish(analysis)
    found = state(place, criterion=criterion, within=3)
    assert found.not_compared() == [] and found.next(room=1) == []
    assert 60 < found.row("16×16")["n_star"] < 90


def test_a_sweep_has_a_curve_for_all_that_differ_in_more_than_n_subset_and_seed() -> None:
    axes = {**TINY, "n_train": (3, 10, 100), "subset": ("A", "B"), "seed": (2, 1)}
    curves = curves_of(grid({**axes, "resolution": (20, 16), "width": (8, 4)}))
    assert list(curves) == ["16×16 width=4", "20×20 width=4", "16×16 width=8", "20×20 width=8"], "the cheapest first"
    assert {(c.curve.least, c.curve.largest, c.curve.seed) for c in curves.values()} == {(3, 100, 1)}
    trials = curves["20×20 width=8"].trials(Unit("", 7, 1, ""))
    assert trials == grid({**axes, "resolution": 20, "width": 8, "n_train": 7, "seed": 1})


def test_what_cannot_be_searched_is_refused(place: Place) -> None:
    with pytest.raises(UserError, match=r"has n_train=5 only; give the least and the largest"):
        state(place, grid({**TINY, "n_train": 5}))
    with pytest.raises(UserError, match=r"--within 1: must be above 1"):
        state(place, within=1.0)
    np.save(place.folder / "few.npy", np.random.default_rng(0).integers(0, 256, (50, 16, 16), dtype=np.uint8))
    with pytest.raises(UserError, match=r"n_train=10: few has 50 images.*at most 9"):
        state(place, grid({**TINY, "dataset": str(place.folder / "few.npy"), "n_train": (2, 10)}))


def test_as_many_trials_have_room_as_their_cpus_and_parts_of_gpus_allow() -> None:
    workers = [WorkerType("one", 8, 2, math.inf, "T4"), WorkerType("other", 3, 0, math.inf, "")]
    for cpus, gpus, count in ((1, 0, 11), (3, 0, 3), (0.5, 0, 22), (1, 1, 2), (1, 1 / 3, 6), (2, 1 / 3, 4), (1, 3, 0)):
        assert spots.trials_at_once(workers, cpus, gpus) == count


def test_this_machine_has_room_for_a_pair_on_two_cores(ray_here: None) -> None:
    workers, _ = spots.here()
    if not workers[0].gpus:
        assert spots.room(RANGE[0], None) == hardware.cores() // 2
    assert spots.room(RANGE[0], "auto", gpus=0) == int(sum(each.cpus for each in worker_types.living())) // 2
