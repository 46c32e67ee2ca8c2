import threading

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from gahb.tracking.metric_logger import MetricLogger, Stopped, Superseded
from tests.helpers import Place, new_trial

ROWS = [({"images_seen": step, "loss": 1 / step, "psnr_gap": float(step)}, 1.8e9 + step) for step in (16, 32, 64)]


def open_logger(place: Place, run_id: str) -> MetricLogger:
    return MetricLogger(place.writer, run_id, threading.Event())


def assert_complete(place: Place, run_id: str) -> None:
    for key in ("loss", "psnr_gap", "images_seen"):
        assert place.record.history(run_id, key) == [(row["images_seen"], row[key]) for row, _ in ROWS]


def test_what_is_logged_is_not_logged_again(place: Place) -> None:
    run_id = new_trial(place)
    with open_logger(place, run_id) as first:
        first.log(ROWS[:1])
        first.log(ROWS[:2])
        first.flush()
    with open_logger(place, run_id) as second:  # a worker that resumes from an older checkpoint
        second.log(ROWS[:1])
        second.log(ROWS)
        second.flush()
    assert_complete(place, run_id)


def test_a_late_request_is_no_second_row(place: Place) -> None:
    run_id = new_trial(place)
    with open_logger(place, run_id) as logger:
        logger.log(ROWS)
        logger.flush()
    late = [Metric(key, value, round(1000 * at), row["images_seen"]) for row, at in ROWS for key, value in row.items()]
    MlflowClient(place.record.uri).log_batch(run_id, metrics=late)
    assert_complete(place, run_id)


def test_a_superseded_worker_is_halted_and_writes_no_more(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gahb.tracking.metric_logger.POLL_SECONDS", 0.2)
    run_id = new_trial(place)
    halt = threading.Event()
    with MetricLogger(place.writer, run_id, halt) as cut_off:
        cut_off.check()
        with open_logger(place, run_id) as taking_over:
            taking_over.log(ROWS[:1])
            taking_over.flush()
        assert halt.wait(10)
        cut_off.log(ROWS)
        with pytest.raises(Superseded):
            cut_off.flush()
    assert len(place.record.history(run_id, "loss")) == 1


def test_a_user_stops_a_worker(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gahb.tracking.metric_logger.POLL_SECONDS", 0.2)
    run_id = new_trial(place)
    halt = threading.Event()
    with MetricLogger(place.writer, run_id, halt) as logger:
        place.writer.tag(run_id, {"gahb.stop": "true"})
        assert halt.wait(10)
        with pytest.raises(Stopped):
            logger.check()


def test_what_the_record_refuses_for_good_is_raised(place: Place) -> None:
    run_id = new_trial(place)
    with open_logger(place, run_id) as logger:
        MlflowClient(place.record.uri).delete_run(run_id)
        logger.log(ROWS)
        with pytest.raises(Exception, match=r"deleted|active"):
            logger.flush()
