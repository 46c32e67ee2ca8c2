from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from gahb_analysis.pair import compare
from gahb_analysis.trajectories import SHOWN, follow, shown_steps, where_they_part

from gahb.tracking import lookup
from tests.helpers import Ended, Place

CPU = torch.device("cpu")


def way(cosines: list[float]) -> pd.DataFrame:
    sigma = np.geomspace(1, 0.05, len(cosines))
    steps = range(1, len(cosines) + 1)
    return pd.DataFrame({"step": steps, "sigma_a": sigma, "sigma_b": sigma, "cosine_centered": cosines})


def test_ways_part_where_they_stay_apart() -> None:
    parting = where_they_part(way([0.8, 0.7, 0.9, 0.73, 0.71, 0.5]))
    assert parting is not None and parting["step"] == 5
    assert where_they_part(way([0.8, 0.1, 0.8])) is None
    assert where_they_part(way([0.5] * 4)) is None


def test_shown_steps_are_evenly_spaced_in_log_sigma() -> None:
    assert shown_steps(way([1.0] * 91)) == list(range(0, 91, 10))
    assert shown_steps(way([1.0] * 3)) == [0, 1, 2]
    assert len(shown_steps(way([1.0] * 77))) == SHOWN


def test_the_way_of_a_sample_ends_at_the_sample_of_pair(finished: Place) -> None:
    a, b = finished.model("16x16-N64-A"), finished.model("16x16-N64-B")
    ways, pair = follow(a, b, 3, 0, CPU), compare(a, b, 4, 0, CPU)
    assert ways.converged and len(ways.table) == pair.table[["steps_a", "steps_b"]].max(axis=1)[3]
    _, of_a, of_b, _ = pair.shown
    torch.testing.assert_close(ways.denoised_a[-1], of_a[3], atol=1e-4, rtol=0)
    torch.testing.assert_close(ways.denoised_b[-1], of_b[3], atol=1e-4, rtol=0)
    assert ways.metrics()["cosine_end"] == pytest.approx(pair.table["cosine_centered"][3], abs=1e-3)
    assert (ways.table[["sigma_a", "sigma_b"]].iloc[-1] <= 0.05).all()


def test_a_model_and_itself_do_not_part(finished: Place) -> None:
    a = finished.model("16x16-N64-A")
    ways = follow(a, a, 0, 0, CPU)
    np.testing.assert_allclose(ways.table["cosine_centered"], 1, atol=1e-5)
    assert ways.metrics().keys() == {"cosine_start", "cosine_end"}


def test_trajectories_command(command: Callable[..., Ended], finished: Place) -> None:
    arguments = ("trajectories", "16x16-N1-A", "16x16-N1-B", "--sample", "1", "--json", *finished.flags)
    data = command("gahb-analyze", *arguments).json
    assert data["converged"] and [row["step"] for row in data["steps"]] == list(range(1, len(data["steps"]) + 1))
    assert data["cosine_start"] == data["steps"][0]["cosine_centered"]
    (run,) = [r for r in finished.record.runs("trajectories") if r.run_id == data["run_id"]]
    linked = {run.tags["gahb.of.0"], run.tags["gahb.of.1"]}
    assert linked == {lookup.find(finished.record, f"16x16-N1-{s}").run_id for s in "AB"}
    names = {file.name for file in finished.record.artifacts(run.run_id).iterdir()}
    assert names == {"trajectories.csv", "trajectories.png", "trajectories.svg", "images"}
    assert "at the start" in command("gahb-analyze", *arguments[:3], *finished.flags).out
    ended = command("gahb-analyze", "trajectories", "16x16-N1-A", "16x16-N64-A", *finished.flags)
    assert ended.code == 2 and "common images" in ended.err
