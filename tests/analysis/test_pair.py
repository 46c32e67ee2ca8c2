from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from gahb_analysis import models
from gahb_analysis.pair import check_pair, compare

from gahb.errors import UserError
from gahb.tracking import lookup
from gahb.trial import Trial
from tests.helpers import TINY, Ended, Place

CPU = torch.device("cpu")


def test_pair_command(command: Callable[..., Ended], finished: Place) -> None:
    arguments = ("pair", "16x16-N64-A", "16x16-N64-B", "--samples", "8", "--json", *finished.flags)
    data = command("gahb-analyze", *arguments).json
    for key in ("cosine", "cosine_centered", "closest_train"):
        assert data[key].keys() == {"mean", "median", "quantiles"}
        assert -1 <= data[key]["quantiles"]["0.05"] <= data[key]["median"] <= data[key]["quantiles"]["0.95"] <= 1 + 1e-6
    assert data["samples"] == 8 and data["diverged"] == 0
    (run,) = [r for r in finished.record.runs("pair") if r.run_id == data["run_id"]]
    linked = {run.tags["gahb.of.0"], run.tags["gahb.of.1"]}
    assert linked == {lookup.find(finished.record, f"16x16-N64-{s}").run_id for s in "AB"}
    assert run.metrics["cosine_mean"] == pytest.approx(data["cosine"]["mean"]) and run.state == "finished"
    folder = finished.record.artifacts(run.run_id)
    assert {file.name for file in folder.iterdir()} == {"pair.csv", "pair.png", "pair.svg"}
    table = pd.read_csv(folder / "pair.csv")
    assert len(table) == 8 and table["cosine"].mean() == pytest.approx(data["cosine"]["mean"])
    assert command("gahb-analyze", *arguments[:5], *finished.flags).out.startswith("measure")


def test_a_model_paired_with_itself_is_one(finished: Place) -> None:
    a = finished.model("16x16-N64-A")
    pair = compare(a, a, 6, 0, CPU)
    np.testing.assert_allclose(pair.table["cosine"], 1, atol=1e-5)
    np.testing.assert_allclose(pair.table["cosine_centered"], 1, atol=1e-5)
    assert pair.swap_gap == 0
    assert (pair.table["mismatched_centered"] < 0.95).all()


def test_memorisation_and_generalisation_look_different(finished: Place) -> None:
    few, many = (compare(finished.model(f"16x16-N{n}-A"), finished.model(f"16x16-N{n}-B"), 16, 0, CPU) for n in (1, 64))
    assert few.swap_gap > many.swap_gap + 1
    few_summary, many_summary = few.summary(), many.summary()
    assert few_summary["closest_train"]["mean"] > few_summary["closest_other"]["mean"]
    assert many_summary["excess"]["mean"] > few_summary["excess"]["mean"]
    converged = few.table[few.table["converged"]]
    np.testing.assert_allclose(
        converged["excess"], converged["cosine_centered"] - converged["mismatched_centered"], atol=1e-6
    )
    assert (converged["closest_a"] == 0).all()


def test_pairs_that_share_images_or_data_only_in_name_are_refused(
    finished: Place, ray_here: None, place: Place
) -> None:
    a, b, both = (finished.model(name) for name in ("16x16-N1-A", "16x16-N1-B", "16x16-N64-A"))
    check_pair(a, b)
    check_pair(b, both)
    with pytest.raises(UserError, match="1 common images"):
        check_pair(a, both)
    check_pair(a, both, force=True)
    others = [
        Trial.of({**TINY, "n_train": 1, "images": 32, **change}) for change in ({"alpha": 3.0}, {"resolution": 8})
    ]
    place.launch(others)
    rougher, smaller = (place.model(name) for name in ("16x16-N1-A", "8x8-N1-A"))
    with pytest.raises(UserError, match="different data sets"):
        check_pair(b, rougher)
    with pytest.raises(UserError, match="nothing to compare"):
        check_pair(b, smaller, force=True)


def test_changed_images_are_noticed(finished: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.subsets, "subset_hash", lambda images: "another")
    with pytest.raises(UserError, match="not those it was trained on"):
        finished.model("16x16-N1-A")


def test_diverged_samples_are_counted_and_left_out(finished: Place) -> None:
    a, b = finished.model("16x16-N1-A"), finished.model("16x16-N1-B")
    half = torch.zeros(10, dtype=torch.bool)
    half[:5] = True

    pair = compare(a, b, 10, 0, CPU)
    table = pair.table.assign(converged=half.numpy(), cosine=[1.0] * 5 + [float("nan")] * 5)
    summary = replace(pair, table=table).summary()
    assert summary["diverged"] == 5 and summary["cosine"]["mean"] == 1


def test_pairs_command(command: Callable[..., Ended], finished: Place) -> None:
    data = command("gahb-analyze", "pairs", "tiny", "--samples", "8", "--json", *finished.flags).json
    assert [(row["pair"], row["n_train"]) for row in data["pairs"]] == [("16x16-N1", 1), ("16x16-N64", 64)]
    (run,) = [r for r in lookup.analyses(finished.record, "tiny") if r.run_id == data["run_id"]]
    names = {file.name for file in finished.record.artifacts(run.run_id).iterdir()}
    assert names == {"pairs.csv", "samples.csv", "pairs.png", "pairs.svg"}
