from typing import Any

import pytest
import torch

import gahb
from gahb.errors import UserError
from gahb.storage.retry import with_retries
from gahb.tracking import lookup
from gahb.tracking.logged_models import IMAGES_SEEN, log_models
from gahb.tracking.run import METRICS, Run
from gahb.training import weights
from gahb.trial import Trial
from tests.helpers import TINY, Place, new_trial

FLAT = Trial.of({**TINY, "n_train": 1}).flat()
ROWS = [({"images_seen": step, **dict.fromkeys(METRICS, step / 2)}, 1.8e9 + step) for step in (32, 64, 128)]


def models_of(place: Place, run: Run) -> list[Any]:
    found = place.record.client.search_logged_models([run.experiment_id], f"source_run_id = '{run.run_id}'")
    return sorted(found, key=lambda model: int(model.tags[IMAGES_SEEN]))


def test_every_evaluation_of_a_trial_is_a_checkpoint_with_its_metrics(finished: Place) -> None:
    run = lookup.find(finished.record, "16x16-N64-A")
    models = models_of(finished, run)
    for key in METRICS:
        values = [(m.step, m.value) for model in models for m in model.metrics if m.key == key]
        assert values == finished.record.history(run.run_id, key) and len(values) == len(models)
    assert {(m.dataset_name, m.dataset_digest) for model in models for m in model.metrics} == {
        ("c_alpha", run.tags["gahb.data_hash"])
    }
    assert {model.status.value for model in models} == {"READY"}
    outputs = finished.record.client.get_run(run.run_id).outputs.model_outputs
    assert sorted(output.model_id for output in outputs) == sorted(model.model_id for model in models)
    best = finished.record.client.search_logged_models(
        [run.experiment_id],
        "params.n_train = '64' and metrics.psnr_gap < 5",
        order_by=[{"field_name": "metrics.test_psnr", "ascending": False}],
    )
    assert best[0].params["n_train"] == "64" and best[0].model_type == "denoiser"


def test_a_checkpoint_is_loaded_by_its_id(finished: Place) -> None:
    run = lookup.find(finished.record, "16x16-N1-B")
    history = dict(weights.read_weight_history(finished.record.artifacts(run.run_id)))
    y = torch.rand(2, 1, 16, 16)
    models = models_of(finished, run)
    assert [int(model.tags[IMAGES_SEEN]) for model in models] == list(history)
    for model in (models[0], models[-1]):
        found = gahb.load(model.model_id, record=finished.record.uri, storage=str(finished.storage))
        assert torch.equal(found(y), history[int(model.tags[IMAGES_SEEN])](y))


def test_there_is_one_checkpoint_an_evaluation_whatever_is_asked_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, record, lost = new_trial(place), place.record, [False, True, True]
    create = record.client.create_logged_model

    def answer_lost(*arguments: Any, **options: Any) -> Any:
        model = create(*arguments, **options)
        if lost and lost.pop():
            raise ConnectionError("no answer")
        return model

    monkeypatch.setattr(record.client, "create_logged_model", answer_lost)
    with_retries(lambda: log_models(record, run_id, FLAT, ("set", "123"), ROWS[:2]), wait=lambda seconds: None)
    for _ in range(2):
        log_models(record, run_id, FLAT, ("set", "123"), ROWS)
    models = models_of(place, lookup.find(record, run_id))
    assert [model.tags[IMAGES_SEEN] for model in models] == ["32", "64", "128"]
    assert all(len(model.metrics) == len(METRICS) and model.status.value == "READY" for model in models)
    assert len(record.client.get_run(run_id).outputs.model_outputs) == 3
    assert record.history(run_id, "psnr_gap") == [(32, 16.0), (64, 32.0), (128, 64.0)]


def test_a_model_of_something_else_is_refused(place: Place) -> None:
    run_id = new_trial(place)
    experiment_id = lookup.find(place.record, run_id).experiment_id
    log_models(place.record, run_id, FLAT, ("set", "123"), ROWS[:1])
    (own,) = models_of(place, lookup.find(place.record, run_id))
    other = place.record.client.create_logged_model(experiment_id, tags={IMAGES_SEEN: "../1"}, source_run_id=run_id)
    for model_id, reason in (
        (f"m-{'0' * 32}", "no model m-0000"),
        (other.model_id, "none of gahb's"),
        (own.model_id, "is scheduled, not finished"),
    ):
        with pytest.raises(UserError, match=reason):
            gahb.load(model_id, record=place.record.uri, storage=str(place.storage))
