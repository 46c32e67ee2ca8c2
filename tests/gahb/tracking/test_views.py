import base64
import json
import subprocess
import zlib
from pathlib import Path
from typing import Any

import gahb_analysis.pair
import pytest

from gahb.denoising.sampler import Sampler
from gahb.execution.analysis import AnalysisResult, log_result
from gahb.tracking import lookup, provenance, views
from gahb.tracking.run import METRICS, Kind
from tests.helpers import Place, new_trial


def experiment(place: Place, name: str) -> Any:
    return place.record.client.get_experiment_by_name(name)


def page(place: Place, name: str, key: str) -> dict[str, Any]:
    view = json.loads(experiment(place, name).tags[f"mlflow.sharedViewState.{key}"])
    packed = view["state"].removeprefix("deflate;")
    state: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return state


def metrics_of(state: dict[str, Any]) -> set[str]:
    cards = [card for card in state["compareRunCharts"] if not card["deleted"]]
    return {key for card in cards for key in card.get("selectedMetricKeys", ())}


def test_a_launch_has_the_ui_open_on_n_and_the_gap(copied: Place) -> None:
    state = page(copied, "tiny", "gahb-trials")
    assert (
        state["selectedColumns"][:2] == ["metrics.`n`", "metrics.`psnr_gap`"] and state["orderByKey"] == "metrics.`n`"
    )
    logged = set(copied.record.client.get_run(lookup.find(copied.record, "16x16-N64-A").run_id).data.metrics)
    assert metrics_of(page(copied, "tiny", "gahb-charts")) - logged == {"by_n/excess", "by_n/cosine"}
    charts = page(copied, "tiny", "gahb-charts")["compareRunCharts"]
    cards = {key for card in charts for key in (card.get("metricKey"), *card.get("selectedMetricKeys", ()))}
    assert logged <= cards, "what no card is of gets one by itself"
    assert {key for card in charts for key in card.get("imageKeys", ())} == set(views.EXAMPLES)
    assert [c["imageKeys"] for c in page(copied, "tiny", "gahb-images")["compareRunCharts"] if not c["deleted"]] == [
        ["denoised"]
    ]
    link = copied.record.url("tiny")
    assert link.endswith("&compareRunsMode=TABLE&viewStateShareKey=gahb-trials")
    assert f"]({link})" in experiment(copied, "tiny").tags["mlflow.note.content"]


def test_n_is_a_metric_that_only_the_ui_reads(finished: Place) -> None:
    for run in finished.record.runs(Kind.TRIAL):
        n_train = run.flat["n_train"]
        assert finished.record.history(run.run_id, "n") == [(0, n_train)]
        assert finished.record.history(run.run_id, "by_n/psnr_gap") == [(n_train, run.metrics["psnr_gap"])]
        assert not {"n", "by_n/psnr_gap"} & run.metrics.keys() and set(METRICS) <= run.metrics.keys()


def test_views_are_written_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    new_trial(place)
    client, written = place.record.client, list[str]()
    write = client.set_experiment_tag

    def noted(experiment_id: str, key: str, value: str) -> None:
        written.append(key)
        write(experiment_id, key, value)

    monkeypatch.setattr(client, "set_experiment_tag", noted)
    views.set_up_trials(client, "s", 640)
    assert len(written) == len(set(written)) == len(views.of_trials()) + 2
    views.set_up_trials(client, "s", 640)
    assert len(written) == len(views.of_trials()) + 2
    views.set_up_trials(client, "s", 1280)
    assert written[len(views.of_trials()) + 2 :] == ["mlflow.sharedViewState.gahb-images"]


def test_a_view_fits_into_a_tag_of_every_mlflow(place: Place) -> None:
    for view in views.of_trials(10**9):
        assert len(views.packed(view.page)) < 5000


def test_a_pair_and_its_trials_lead_to_each_other(copied: Place) -> None:
    names = ("16x16-N64-A", "16x16-N64-B")
    result = gahb_analysis.pair.run(
        copied.context, run1=names[0], run2=names[1], samples=2, seed=0, sampler=Sampler(), force=False
    )
    run_id, _ = log_result(copied.context, "pair", result)
    for name in names:
        run = lookup.find(copied.record, name)
        ((analyses, asked),) = run.analyses.values()
        assert asked == run_id and analyses == experiment(copied, "tiny-analysis").experiment_id
        note = run.tags["mlflow.note.content"]
        assert f"[pair]({views.run_link(analyses, run_id)})" in note and f"denoised.png&run_uuid={run.run_id}" in note
        assert views.run_link(run.experiment_id, run.run_id) in copied.record.tags(run_id)["mlflow.note.content"]
        assert copied.record.history(run.run_id, "by_n/excess") == [(64, result.metrics["excess_mean"])]
    images = copied.record.client.list_artifacts(run_id, "images")
    assert {Path(file.path).name.split("+")[0] for file in images} == {"pair"}
    assert page(copied, "tiny-analysis", "gahb-pictures")["compareRunCharts"][0]["imageKeys"] == ["pair"]
    for name in ("tiny", "tiny-analysis"):
        note = experiment(copied, name).tags["mlflow.note.content"]
        assert "=TABLE&viewStateShareKey=gahb-trials" in note and "=CHART&viewStateShareKey=gahb-pictures" in note


def test_an_analysis_counts_although_its_trials_may_not_be_written(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

    run = lookup.find(place.record, new_trial(place))

    def refuse(*_: Any, **__: Any) -> None:
        raise MlflowException("Permission denied", error_code=PERMISSION_DENIED)

    monkeypatch.setattr("gahb.tracking.views.set_up_analyses", refuse)
    made, _ = log_result(place.context, "x", AnalysisResult(name="x", runs=[run], data={}))
    assert lookup.analyses(place.record, "s")[0].run_id == made
    assert "Permission denied" in caplog.text


def test_the_source_is_a_checkout_or_a_version(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x"]
    for words in (["init", "-q", "-b", "trunk"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    found = provenance._checkout(tmp_path)
    assert found["mlflow.source.git.branch"] == "trunk" and len(found["mlflow.source.git.commit"]) == 40
    (tmp_path / "site-packages").mkdir()
    assert provenance._checkout(tmp_path / "site-packages") == {}
    assert {"mlflow.source.name", "mlflow.source.git.commit"} <= provenance.provenance().keys()


def test_a_trial_shows_what_it_makes_of_held_out_images_at_each_evaluation(finished: Place) -> None:
    run_id = lookup.find(finished.record, "16x16-N1-A").run_id
    evaluated = {step for step, _ in finished.record.history(run_id, "psnr_gap")}
    assert finished.writer.images_of(run_id) == {("denoised", step) for step in evaluated}
