import math

import pytest

from gahb.errors import UserError
from gahb.trial import Trial

PLAIN = {"dataset": "c_alpha", "resolution": 20, "n_train": 10}


def test_a_trial_survives_flattening() -> None:
    for flat in (
        PLAIN,
        {**PLAIN, "dataset": "disks", "subset": "B", "seed": 3},
        {**PLAIN, "dataset": "/a/faces.npy", "duplicates": 0.9},
        {**PLAIN, "architecture": "bf_cnn", "layers": 5, "width": 16},
        {**PLAIN, "architecture": "transformer", "patch": 2, "depth": 3, "width": 32, "heads": 2},
        {**PLAIN, "alpha": 1.5, "background_alpha": 8.0},
        {**PLAIN, "dataset": "ray", "base": "disks", "shuffled": True},
    ):
        trial = Trial.of(flat)
        assert Trial.of(trial.flat()) == trial
        assert flat.items() <= trial.flat().items()


def test_signature_changes_with_everything_that_changes_the_result_and_with_nothing_else() -> None:
    base = Trial.of({**PLAIN, "images": 1000})
    variants = [
        {"alpha": 3.0}, {"n_train": 11}, {"subset": "B"}, {"seed": 1}, {"n_test": 100}, {"images": 2000},
        {"batch_size": 16}, {"learning_rate": 1e-4}, {"schedule": "cosine"}, {"precision": "bfloat16"},
        {"precision": "tf32"}, {"compile": True}, {"width": 32}, {"architecture": "bf_cnn"},
        {"architecture": "transformer"}, {"architecture": "transformer", "patch": 2},
        {"architecture": "transformer", "depth": 2}, {"architecture": "transformer", "heads": 2},
        {"optimizer": "muon"}, {"beta2": 0.95}, {"warmup": 100}, {"ema": 0.05}, {"noise_law": "lognormal"},
        {"weighting": "inverse_sigma"}, {"evaluations": 2}, {"schedule": "constant"},
        {"schedule": "constant", "until": "settled"},
    ]  # fmt: skip
    # alpha, shuffled and resolution reach the signature through the data set's hash
    signatures = {
        Trial.of({**PLAIN, "images": 1000, **change}).signature("other" if "alpha" in change else "data")
        for change in variants
    }
    assert len(signatures | {base.signature("data")}) == len(variants) + 1
    here, there = (Trial.of({**PLAIN, "dataset": path}) for path in ("/here/faces.npy", "/there/faces.npy"))
    assert here.signature("data") == there.signature("data")


def test_signatures_of_the_first_release_still_hold() -> None:
    # Stored records are found by these. If this fails, old trials would be trained again.
    assert Trial.of({**PLAIN, "images": 1000}).signature("0123456789abcdef") == "0c549f10b4a0"
    assert Trial.of({**PLAIN, "architecture": "bf_cnn", "seed": 7}).signature("0123456789abcdef") == "18f63be836c0"


def test_fields_added_later_are_part_of_the_trial_only_where_they_change_it() -> None:
    flat = {**PLAIN, "architecture": "bf_cnn", "seed": 7}
    assert Trial.of({**flat, "spacing": 1, "first_relu": False}).signature("0123456789abcdef") == "18f63be836c0"
    changes: list[dict[str, object]] = [{}, {"spacing": 2}, {"first_relu": True}, {"spacing": 4, "first_relu": True}]
    assert len({Trial.of({**flat, **change}).signature("data") for change in changes}) == 4
    for change in changes:
        trial = Trial.of({**flat, **change})
        assert Trial.of(trial.flat()) == trial
        assert change.keys() == {"spacing", "first_relu"} & trial.flat().keys()


def test_defaults_are_the_papers() -> None:
    assert [Trial.of({**PLAIN, "resolution": r}).architecture.blocks for r in (20, 40, 80, 160)] == [1, 2, 3, 4]  # type: ignore[attr-defined]
    assert [Trial.of({**PLAIN, "resolution": r}).images for r in (20, 40, 80, 160)] == [10**9] * 2 + [250_000_000] * 2
    trial = Trial.of({**PLAIN, "resolution": 80})
    assert trial.steps == math.ceil(250_000_000 / 512) == 488_282


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_train": 0}, "at least 1"),
        ({"images": -5}, "at least 1"),
        ({"n_test": 10**12 + 1}, "at most"),
        ({"n_train": "5"}, "n_train='5': must be a whole number"),
        ({"n_train": True}, "must be a whole number"),
        ({"batch_size": 32.0}, "must be a whole number"),
        ({"learning_rate": "fast"}, "must be a finite number"),
        ({"blocks": 13, "resolution": 4096}, "at most 12"),
        ({"learning_rate": math.nan}, "positive number"),
        ({"learning_rate": -1.0}, "positive number"),
        ({"seed": -1}, "seed"),
        ({"subset": "C"}, "one of A, B"),
        ({"schedule": "warm"}, "halving, cosine, constant"),
        ({"optimizer": "sgd"}, "adam, muon"),
        ({"noise_law": "white"}, "square, lognormal, log_uniform"),
        ({"weighting": "sigma"}, "uniform, inverse_sigma"),
        ({"ema": 0.3}, r"0 … 0\.25"),
        ({"beta2": 1.0}, "beta2"),
        ({"warmup": -1}, "warmup"),
        ({"evaluations": 0}, "at least 1"),
        ({"until": "settled"}, "until=settled needs schedule=constant"),
        ({"precision": "float16"}, "float32, tf32, bfloat16"),
        ({"architecture": "resnet"}, "unknown architecture"),
        ({"resolution": 30, "blocks": 2}, "multiples of 4"),
        ({"resolution": 0}, "at least 1"),
        ({"blocks": 0}, "at least 1"),
        ({"width": 0}, "at least 1"),
        ({"architecture": "bf_cnn", "layers": 1}, "at least 2"),
        ({"architecture": "bf_cnn", "spacing": 0}, "at least 1"),
        ({"architecture": "bf_cnn", "blocks": 1}, "does not apply"),
        ({"architecture": "transformer", "blocks": 1}, "does not apply"),
        ({"architecture": "transformer", "depth": 0}, "at least 1"),
        ({"architecture": "transformer", "patch": 5}, "patch=5: must be even"),
        ({"architecture": "transformer", "width": 24}, "width=24: must be a multiple of 16"),
        ({"architecture": "transformer", "resolution": 22}, "patch=4 takes multiples of 4 only, such as 24"),
        ({"architecture": "transformer", "resolution": 0}, "at least 1"),
        ({"dataset": "disks", "alpha": 2.0}, "does not apply"),
        ({"alpha": 0.0}, "alpha"),
        ({"dataset": "x.npy", "duplicates": 0.0}, "duplicates"),
        ({"colour": 1}, "unknown key"),
    ],
)
def test_trials_that_cannot_be(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Trial.of({**PLAIN, **change})


def test_trials_of_one_course_differ_in_their_length_alone() -> None:
    constant = {**PLAIN, "schedule": "constant", "images": 1000}
    course = Trial.of(constant).course("data")
    assert course == Trial.of({**constant, "images": 2000}).course("data") is not None
    others = [{"n_train": 11}, {"subset": "B"}, {"ema": 0.05}, {"until": "settled"}, {"batch_size": 16}]
    assert course not in {Trial.of({**constant, **change}).course("data") for change in others}
    assert course != Trial.of(constant).course("other")
    assert Trial.of(PLAIN).course("data") is None


def test_a_trial_needs_data_resolution_and_size() -> None:
    with pytest.raises(UserError, match="n_train"):
        Trial.of({"dataset": "disks", "resolution": 20})
