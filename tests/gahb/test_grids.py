import pytest

from gahb.errors import UserError
from gahb.grids import differing, grid, pair_name, parse_overrides, readable_name, union

PLAIN = {"dataset": "c_alpha", "resolution": 20, "n_train": 10}


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


def test_a_pair_has_the_name_that_its_trials_have_but_for_the_subset() -> None:
    trials = grid({**PLAIN, "n_train": (1, 64), "subset": ("A", "B"), "seed": (0, 1)})
    names = [pair_name(trial, differing(trials)) for trial in trials]
    assert names == [f"20x20-N{n}-seed{seed}" for n in (1, 64) for _ in "AB" for seed in (0, 1)]
    on_a = [trial for trial in trials if trial.subset == "A"]
    for trial in on_a:
        assert readable_name(trial, differing(trials)) == pair_name(trial, differing(on_a)).replace("-seed", "-A-seed")
