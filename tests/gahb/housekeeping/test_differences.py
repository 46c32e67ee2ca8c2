from collections.abc import Callable

from gahb.housekeeping.differences import EFFORT
from gahb.tracking import lookup
from tests.helpers import Ended, Place


def test_runs_differ_in_what_they_were_told_and_what_came_of_it(finished: Place, command: Callable[..., Ended]) -> None:
    assert command("gahb-sweep", "diff", "16x16-N1-A", "16x16-N1-A", *finished.flags).out == ""
    ended = command("gahb-sweep", "diff", "16x16-N1-A", "16x16-N64-B", "--json", *finished.flags)
    runs = [lookup.find(finished.record, name) for name in ("16x16-N1-A", "16x16-N64-B")]
    assert ended.json["runs"] == [run.run_id for run in runs]
    rows = {(row["part"], row["key"]): (row["first"], row["second"]) for row in ended.json["differences"]}
    settings = {key: values for (part, key), values in rows.items() if part == "settings"}
    assert settings == {"n_train": (1, 64), "subset": ("A", "B")}
    assert {key for part, key in rows if part == "data"} == {"subset_hash"}, "they are trained on one data set"
    assert rows["results", "psnr_gap"] == tuple(run.metrics["psnr_gap"] for run in runs)
    assert len(set(rows["results", "weights_sha256"])) == 2
    assert {key for part, key in rows if part == "made with"} <= set(EFFORT)
    shown = command("gahb-sweep", "diff", "16x16-N1-A", "16x16-N64-B", *finished.flags).out
    assert f"16x16-N1-A ({runs[0].run_id[:8]})" in shown.splitlines()[0] and len(shown.splitlines()) == 1 + len(rows)
    ended = command("gahb-sweep", "diff", "16x16-N1-A", "nothing", *finished.flags)
    assert ended.code == 2 and "no trial 'nothing'" in ended.err
