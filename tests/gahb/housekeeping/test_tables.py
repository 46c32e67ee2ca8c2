from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from gahb.housekeeping.formats import Format
from gahb.housekeeping.tables import newest, tables, write
from gahb.tracking import lookup
from gahb.tracking.run import METRICS, Tag, link
from tests.helpers import TINY, Ended, Place


def test_a_sweep_is_exported_as_tidy_tables(copied: Place, command: Callable[..., Ended], tmp_path: Path) -> None:
    copied.execute("UPDATE runs SET name = '=cmd()' WHERE name = '16x16-N64-B'")
    for threshold in ("1", "0.5"):
        command("gahb-analyze", "scaling", "tiny", "--threshold", threshold, *copied.flags)
    ended = command("gahb-sweep", "export", "tiny", "--to", str(tmp_path / "t"), "--json", *copied.flags).json
    found = {row["table"]: pd.read_csv(row["file"]) for row in ended["tables"]}
    assert {name: len(table) for name, table in found.items()} == {r["table"]: r["rows"] for r in ended["tables"]}
    runs = {run.run_id: run for run in lookup.finished_trials(copied.record, "tiny")}
    trials = found["trials"].set_index("run_id")
    assert set(trials.index) == set(runs) and set(trials["state"]) == {"finished"}
    for run_id, row in trials.iterrows():
        run = runs[str(run_id)]
        assert row["name"] == run.name.replace("=", "'="), "no formula"
        assert (row["signature"], row["n_train"]) == (run.signature, run.flat["n_train"])
        assert row["learning_rate"] == TINY["learning_rate"], "the setting, and not its last value"
        assert row[list(METRICS)].to_dict() == pytest.approx(run.psnrs)
    histories = found["histories"]
    assert len(histories) == sum(len(copied.record.history(run, "loss")) for run in runs)
    last = histories[histories["images_seen"] == TINY["images"]].set_index("run_id")
    assert last["psnr_gap"].to_dict() == pytest.approx({r: runs[r].metrics["psnr_gap"] for r in runs})
    first, analysis = lookup.analyses(copied.record, "tiny")
    assert found["analyses"]["run_id"].tolist() == [analysis.run_id]
    assert set(found["analyses"]["of"][0].split()) == set(runs)
    assert set(found["scaling"]["analysis_run_id"]) == {analysis.run_id} and "n_train" in found["scaling"]
    assert dict(found["analysis_metrics"][["metric", "value"]].values) == pytest.approx(analysis.metrics)

    every = tables(copied.record, copied.store, "tiny", every=True)
    assert set(every["scaling"]["analysis_run_id"]) == {first.run_id, analysis.run_id}
    of_one, of_another = (replace(first, tags={Tag.KIND: "pair", link(0): run_id}) for run_id in list(runs)[:2])
    assert newest([of_one, first, of_another, analysis]) == [of_one, of_another, analysis]

    parquet = command("gahb-sweep", "export", "tiny", "--to", str(tmp_path / "t"), "--format", "parquet", *copied.flags)
    assert parquet.code == 0 and "parquet" in parquet.out
    for name, table in found.items():
        typed = pd.read_parquet(tmp_path / "t" / f"{name}.parquet")
        assert list(typed.columns) == list(table.columns) and len(typed) == len(table)
    assert {file.suffix for file in (tmp_path / "t").iterdir()} == {".csv", ".parquet"}


def test_nothing_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = pd.DataFrame({"a": [1]})
    write({"first": one, "second": one}, tmp_path, Format.CSV)

    class Full(pd.DataFrame):
        def to_csv(self, *_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        def map(self, *_: object, **__: object) -> "Full":
            return self

    with pytest.raises(OSError, match="No space"):
        write({"first": pd.DataFrame({"a": [2]}), "second": Full(one)}, tmp_path, Format.CSV)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == dict.fromkeys(
        ("first.csv", "second.csv"), "a\n1\n"
    )


def test_a_sweep_that_is_not_there_makes_no_folder(finished: Place, command: Callable[..., Ended]) -> None:
    ended = command("gahb-sweep", "export", "nothing", *finished.flags)
    assert ended.code == 2 and "no sweep 'nothing'" in ended.err and not Path("nothing-export").exists()
