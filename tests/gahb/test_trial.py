import math

import pytest

from gahb.errors import UserError
from gahb.grids import differing, grid, parse_overrides, readable_name, union
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
        {"compile": True}, {"width": 32}, {"architecture": "bf_cnn"},
        {"architecture": "transformer"}, {"architecture": "transformer", "patch": 2},
        {"architecture": "transformer", "depth": 2}, {"architecture": "transformer", "heads": 2},
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


def test_overrides_are_typed() -> None:
    words = ["n_train=1,1e2", "learning_rate=1e-3", "compile=true", "dataset=a b.npy", "alpha=1,2.5"]
    overrides = parse_overrides(words)
    assert overrides == {
        "n_train": [1, 100],
        "learning_rate": [1e-3],
        "compile": [True],
        "dataset": ["a b.npy"],
        "alpha": [1.0, 2.5],
    }
    assert type(overrides["n_train"][1]) is int


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["n_train"], "not of the form key=value"),
        (["n_train="], "not of the form key=value"),
        (["ntrain=1"], "did you mean 'n_train'"),
        (["n_train=1", "n_train=2"], "given twice"),
        (["n_train=1.5"], "whole number"),
        (["n_train=ten"], "whole number"),
        (["n_train=inf"], "whole number"),
        (["learning_rate=nan"], "finite number"),
        (["compile=maybe"], "true or false"),
    ],
)
def test_overrides_that_make_no_sense(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_overrides(words)


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
        ({"schedule": "warm"}, "halving, cosine"),
        ({"precision": "float16"}, "bfloat16"),
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


def test_a_trial_needs_data_resolution_and_size() -> None:
    with pytest.raises(UserError, match="n_train"):
        Trial.of({"dataset": "disks", "resolution": 20})


def test_grid_is_the_product_without_repetition() -> None:
    trials = grid({**PLAIN, "n_train": (1, 10), "subset": ("A", "B")}, {"n_train": [5, 5, 7], "seed": [0, 1]})
    assert [(t.n_train, t.subset, t.seed) for t in trials] == [
        (n, s, k) for n in (5, 7) for s in ("A", "B") for k in (0, 1)
    ]


PARTS = (
    {"dataset": "disks", "resolution": 16, "n_train": 4, "architecture": "unet", "blocks": (1, 2)},
    {"dataset": "disks", "resolution": 20, "n_train": (4, 8), "architecture": "bf_cnn", "layers": 5},
)


def test_a_union_is_its_grids_one_after_the_other() -> None:
    assert union(PARTS) == grid(PARTS[0]) + grid(PARTS[1])
    assert union((PARTS[0], PARTS[0])) == grid(PARTS[0])


def test_overrides_of_a_union_apply_where_they_can() -> None:
    assert union(PARTS, {"architecture": ["bf_cnn"]}) == grid(PARTS[1])
    assert union(PARTS, {"blocks": [1]}) == grid(PARTS[0], {"blocks": 1}) + grid(PARTS[1])
    both = {"width": [8], "seed": [1, 2]}
    assert union(PARTS, both) == grid(PARTS[0], both) + grid(PARTS[1], both)
    with pytest.raises(UserError, match="layers does not apply to unet"):
        union(PARTS, {"architecture": "unet", "layers": [3]})
    with pytest.raises(UserError, match="unknown architecture"):
        union(PARTS, {"architecture": ["resnet"]})


def test_names_show_only_what_differs() -> None:
    trials = grid({"dataset": "c_alpha", "resolution": (20, 160), "n_train": (1, 10), "subset": ("A", "B")})
    assert differing(trials) == []  # blocks and images follow from the resolution
    assert readable_name(trials[0], differing(trials)) == "20x20-N1-A"
    trials = grid({**PLAIN, "dataset": ["c_alpha", "/x/faces.npy"], "seed": (0, 1)})
    names = [readable_name(t, differing(trials)) for t in trials]
    assert names == [f"20x20-N10-A-{d}-seed{s}" for d in ("c_alpha", "faces") for s in (0, 1)]
    trials = grid({**PLAIN, "shuffled": (False, True)})
    assert [readable_name(t, differing(trials)) for t in trials] == ["20x20-N10-A", "20x20-N10-A-shuffled"]
