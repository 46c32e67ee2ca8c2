import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from safetensors.torch import load_file

import gahb
from gahb.data.dataset import prepare
from gahb.denoising.psnr import INPUT_PSNR, average_over_sigma
from gahb.errors import UserError
from gahb.execution.launch import largest_first
from gahb.grids import grid
from gahb.planning import calibration
from gahb.planning.plan import plan
from gahb.storage import leases
from gahb.tracking import lookup
from gahb.tracking.run import Kind, Run
from gahb.training import loop
from gahb.training.checkpoints import Checkpoints
from gahb.training.weights import read_weight_history
from gahb.trial import Trial
from tests.helpers import TINY, TRIAL_TAGS, Ended, Place, Terminal, copy

LONG = {**TINY, "n_train": 4, "images": 32 * 1200}
"""A trial that trains for several seconds, so that it can be killed on the way."""

KEYS = ("images_seen", "loss", "learning_rate", "train_psnr", "test_psnr", "psnr_gap")


def weights(place: Place, run_id: str) -> dict[str, torch.Tensor]:
    return load_file(place.record.artifacts(run_id) / "weights.safetensors")


def assert_same_result(one: tuple[Place, str], other: tuple[Place, str]) -> None:
    """The same weights bit for bit, and metric histories without gap, double step or difference."""
    first, second = weights(*one), weights(*other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    for key in KEYS:
        history, reference = other[0].record.history(other[1], key), one[0].record.history(one[1], key)
        assert history == reference
        steps = [step for step, _ in history]
        assert steps == sorted(set(steps)) and len(steps) > 3


@pytest.fixture(scope="module")
def undisturbed(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str]:
    """The run of LONG that nothing interrupted."""
    place = Place(tmp_path_factory.mktemp("undisturbed"))
    (row,) = place.launch([Trial.of(LONG)])
    return place, row["run_id"]


def test_a_finished_sweep_is_all_there(finished: Place) -> None:
    runs = lookup.finished_trials(finished.record, "tiny")
    assert sorted(run.name for run in runs) == ["16x16-N1-A", "16x16-N1-B", "16x16-N64-A", "16x16-N64-B"]
    for run in runs:
        assert (
            run.params["width"] == "8" and run.params["n_train"] in ("1", "64") and run.params["parameters"] == "5888"
        )
        assert {"gahb.signature", "gahb.data_hash", "gahb.subset_hash", "gahb.subset"} <= run.tags.keys()
        folder = finished.record.artifacts(run.run_id)
        names = {
            "weights.safetensors",
            "card.json",
            "psnr_curve.csv",
            "psnr_curve.png",
            "denoised.png",
            "weight_history",
            "images",
        }
        assert {file.name for file in folder.iterdir()} == names
        curve = pd.read_csv(folder / "psnr_curve.csv")
        assert curve["images_seen"].unique().tolist() == [
            step for step, _ in finished.record.history(run.run_id, "loss")
        ]
        last = curve[curve["images_seen"] == TINY["images"]]
        assert last["input_psnr"].tolist() == list(INPUT_PSNR)
        assert average_over_sigma(tuple(last["test_psnr"])) == pytest.approx(run.metrics["test_psnr"])
        card = json.loads((folder / "card.json").read_text())
        assert card["signature"] == run.signature and card["subset_hash"] == run.tags["gahb.subset_hash"]
        assert card["images_seen"] == TINY["images"]
        assert card["metrics"]["psnr_gap"] == pytest.approx(run.metrics["psnr_gap"])
    gaps = {run.name: run.metrics["psnr_gap"] for run in runs}
    assert min(gaps["16x16-N1-A"], gaps["16x16-N1-B"]) > max(gaps["16x16-N64-A"], gaps["16x16-N64-B"]) + 1


def test_the_weight_history_of_a_training_is_kept(finished: Place) -> None:
    run = lookup.find(finished.record, "16x16-N1-A")
    folder = finished.record.artifacts(run.run_id)
    y = torch.randn(1, 1, 16, 16)
    outputs = {seen: denoiser(y).detach() for seen, denoiser in read_weight_history(folder)}
    assert list(outputs) == [step for step, _ in finished.record.history(run.run_id, "loss")]
    assert torch.equal(
        outputs[TINY["images"]], gahb.load(run.run_id, record=finished.record.uri, storage=finished.store.uri)(y)
    )
    assert len({tuple(out.flatten().tolist()) for out in outputs.values()}) == len(outputs)


def test_load_gives_the_denoiser_that_was_trained(finished: Place) -> None:
    denoiser = gahb.load("16x16-N1-A", record=finished.record.uri, storage=finished.store.uri)
    assert not denoiser.training
    y = torch.randn(3, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(denoiser(2 * y), 2 * denoiser(y))
    run = lookup.find(finished.record, "16x16-N1-A")
    stored = weights(finished, run.run_id)
    assert all(torch.equal(value, stored[key]) for key, value in denoiser.net.state_dict().items())
    with pytest.raises(UserError, match="no trial"):
        gahb.load("nothing", record=finished.record.uri, storage=finished.store.uri)


def test_a_second_launch_trains_nothing(finished: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gahb.execution.ray_cluster.run_trials", None)  # would fail if it were called
    said: list[str] = []
    trials = grid({**TINY, "n_train": (1, 64), "subset": ("A", "B")})
    rows = finished.launch(trials, say=said.append)
    assert said == ["4 trials: 4 finished; nothing to train"]
    assert [row["trained"] for row in rows] == [False] * 4
    assert all(row["metrics"].keys() == {"train_psnr", "test_psnr", "psnr_gap", "psnr_gap_db"} for row in rows)


@dataclass(frozen=True)
class Rest:
    """What a launch trained of a half-finished sweep: its rows, and the runs that it made in their order."""

    place: Place
    rows: list[dict[str, Any]]
    created: list[str]
    half_made: str

    def run(self, row: dict[str, Any]) -> Run:
        return lookup.find(self.place.record, row["run_id"])


@pytest.fixture(scope="module")
def rest(finished: Place, tmp_path_factory: pytest.TempPathFactory) -> Rest:
    """Of one launch of a finished trial, of two that are new, and of one whose run a killed launch has made without its
    parameters; the record does not answer when the first of the new runs is made."""
    place = copy(finished, tmp_path_factory.mktemp("rest") / "copied")
    changes = [
        {"n_train": 1},
        *({"n_train": 2, "images": images} for images in (320, 640)),
        {"n_train": 3, "images": 160},
    ]
    trials = [Trial.of({**TINY, "subset": "A", **change}) for change in changes]
    begun = plan(trials, place.store, place.record)[-1]
    tags = {**TRIAL_TAGS, "gahb.signature": begun.signature, "gahb.sweep.tiny": "true"}
    tags["gahb.trial"] = json.dumps(begun.trial.flat())
    half_made = place.writer.create("tiny", begun.name, params={}, tags=tags)
    create, created = MlflowClient.create_run, list[str]()

    def without_an_answer(client: MlflowClient, *arguments: Any, **options: Any) -> MlflowRun:
        run = create(client, *arguments, **options)
        created.append(run.info.run_id)
        if len(created) == 1:
            raise ConnectionResetError("Connection reset by peer")
        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, "create_run", without_an_answer)
        rows = place.launch(trials)
    return Rest(place, rows, created, half_made)


def test_of_a_half_finished_sweep_the_rest_is_trained_the_longest_first(rest: Rest) -> None:
    assert [row["trained"] for row in rest.rows] == [False, True, True, True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "the next interrupt is for us"
    assert all(rest.run(row).state == "finished" for row in rest.rows)
    assert rest.created == [rest.rows[2]["run_id"], rest.rows[1]["run_id"]], "the longest first"


def test_a_run_whose_creation_was_not_answered_is_trained_and_the_only_one(rest: Rest) -> None:
    longest = rest.run(rest.rows[2])
    assert longest.run_id == rest.created[0]
    runs = rest.place.record.runs(Kind.TRIAL)
    assert [run.run_id for run in runs if run.signature == longest.signature] == [longest.run_id]


def test_a_run_whose_launch_was_killed_while_it_made_it_gets_its_parameters(rest: Rest) -> None:
    assert rest.rows[3]["run_id"] == rest.half_made
    assert rest.run(rest.rows[3]).params["width"] == "8"


def test_the_trials_of_a_pair_begin_next_to_each_other_the_longest_pair_first(place: Place) -> None:
    axes = {"subset": ("B", "A"), "width": (8, 16), "n_train": (1, 4), "seed": (0, 1)}
    ordered = [p.trial for p in largest_first(plan(grid({**TINY, **axes}), place.store, place.record))]
    halves = list(zip(ordered[::2], ordered[1::2], strict=True))
    assert all(replace(b, subset="A") == a for b, a in halves)
    assert [(a.architecture.flat()["width"], a.n_train, a.seed) for _, a in halves] == [
        (width, n, seed) for width in (16, 8) for n in (1, 4) for seed in (0, 1)
    ]


def test_a_trial_belongs_to_every_sweep_that_asked_for_it(finished: Place) -> None:
    rows = finished.launch([Trial.of({**TINY, "n_train": 1})], "another")
    assert [row["trained"] for row in rows] == [False]
    assert [run.name for run in finished.record.runs(Kind.TRIAL, sweep="another")] == ["16x16-N1-A"]
    assert len(finished.record.runs(Kind.TRIAL, sweep="tiny")) == 4


def test_sizes_are_checked_before_anything_starts(place: Place, tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "few.npy", np.random.default_rng(0).integers(0, 256, (50, 16, 16), dtype=np.uint8))
    trial = Trial.of({**TINY, "dataset": str(tmp_path / "few.npy"), "n_train": 10})
    with pytest.raises(UserError, match=r"few has 50 images.*at most 9"):
        place.launch([trial])
    assert place.record.runs(Kind.TRIAL) == []


def test_a_trial_larger_than_every_node_is_refused(ray_here: None, place: Place) -> None:
    for options, changes, message in (
        ({"cpus": 1000}, {}, "needs 1000 CPUs"),
        ({"gpus": 1}, {}, "needs 1 GPUs"),
        ({}, {"batch_size": 10**8}, "GB of memory, and the largest node has"),
    ):
        with pytest.raises(UserError, match=message):
            place.launch([Trial.of({**TINY, "n_train": 1, **changes})], **options)
    assert place.record.runs(Kind.TRIAL) == []


def test_a_broken_worker_is_retried_and_its_reason_kept(ray_here: None, place: Place) -> None:
    trial = Trial.of({**TINY, "n_train": 1, "images": 32 * 5})
    (planned,) = plan([trial], place.store, place.record)
    folder = place.storage / "trials"
    folder.mkdir(parents=True)
    (folder / planned.signature).write_text("a file where the checkpoints' folder should be")
    (row,) = place.launch([trial], retries=1)
    assert row["state"] == "failed" and "NotADirectoryError" in row["reason"]
    (folder / planned.signature).unlink()
    (row,) = place.launch([trial])
    assert row["state"] == "finished" and row["reason"] is None


def test_a_trial_trained_beside_another_is_the_same_trained_alone(undisturbed: tuple[Place, str], place: Place) -> None:
    rows = place.launch(grid({**LONG, "subset": ("A", "B")}))
    first, second = lookup.finished_trials(place.record, "tiny")
    assert attempt(first)[0] != attempt(second)[0], "they were not trained in two processes"
    assert_same_result(undisturbed, (place, rows[0]["run_id"]))


def test_a_finished_trial_tells_what_it_took_and_the_next_plan_knows(finished: Place) -> None:
    runs = lookup.finished_trials(finished.record, "tiny")
    for run in runs:
        assert run.tags["gahb.share"] == "1" and run.tags["gahb.device"].startswith("a core of ")
        assert run.metrics["images_per_second"] > 0 and 0.1 < run.metrics["peak_memory_gb"] < 10
        steps = [step for step, _ in finished.record.history(run.run_id, "images_per_second")]
        assert steps == [TINY["images"]]
    (device,) = calibration.devices(finished.record.runs(*calibration.SPEED))
    (planned,) = plan([Trial.of({**TINY, "n_train": 5})], finished.store, finished.record, lambda trial: device)
    took = [calibration.device_seconds(run) or 0 for run in runs]
    assert planned.state == "new" and planned.known_from == "runs"
    assert planned.seconds == pytest.approx(statistics.median(took))


def attempt(run: Run) -> tuple[int, str]:
    """pid and mark of the worker that writes to a run."""
    _, pid, mark = run.tags["gahb.attempt"].split("/")
    return int(pid), mark


def test_killed_workers_change_nothing(undisturbed: tuple[Place, str], place: Place) -> None:
    kills: list[str] = []

    def kill() -> None:
        """kill -9 of the worker at three random moments after it has written a checkpoint."""
        while len(kills) < 3:
            time.sleep(0.3 + 0.7 * torch.rand(()).item())
            for run in place.record.runs(Kind.TRIAL):
                started = run.tags.get("gahb.attempt") and list((place.storage / "trials").glob("*/step-*"))
                if started and run.state == "running" and attempt(run)[1] not in kills:
                    time.sleep(torch.rand(()).item())
                    kills.append(attempt(run)[1])
                    os.kill(attempt(run)[0], signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    (row,) = place.launch([Trial.of(LONG)], checkpoint_seconds=0.1)
    thread.join(timeout=1)
    assert len(kills) == 3
    assert row["state"] == "finished" and row["trained"]
    assert_same_result(undisturbed, (place, row["run_id"]))


SWEEP_COMMAND = [sys.executable, "-c", "from gahb_sweeps.cli import main; main()"]


def launch_words(place: Place, **changes: object) -> list[str]:
    overrides = [f"{key}={value}" for key, value in {**LONG, "subset": "A", **changes}.items()]
    return ["launch", "demo", *overrides, *place.flags]


def sweep_process(place: Place, **changes: object) -> subprocess.Popen[str]:
    arguments = [*SWEEP_COMMAND, *launch_words(place, **changes), "--checkpoint-seconds", "0.1", "--json"]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_launch_goes_on_at_the_next(
    undisturbed: tuple[Place, str], place: Place, command: Callable[..., Ended]
) -> None:
    first = sweep_process(place)
    while not (checkpoints := list((place.storage / "trials").glob("*/step-*"))):
        assert first.poll() is None, first.communicate()
        time.sleep(0.1)
    time.sleep(2 * torch.rand(()).item())
    first.kill()
    first.communicate()
    (run,) = place.record.runs(Kind.TRIAL)
    (planned,) = plan([Trial.of(LONG)], place.store, place.record)
    assert planned.state == "interrupted" and run.state == "running" and checkpoints

    second = command("gahb-sweep", *launch_words(place), "--json")
    assert second.code == 0, second.err
    (row,) = second.json["trials"]
    assert row["run_id"] == run.run_id and row["state"] == "finished"
    assert_same_result(undisturbed, (place, row["run_id"]))


def test_a_worker_that_died_at_the_very_end_has_left_nothing_out(ray_here: None, place: Place) -> None:
    trial = Trial.of({**TINY, "n_train": 1, "images": 32 * 100})
    (planned,) = plan([trial], place.store, place.record)
    prepared = prepare(trial.dataset, place.store, trial.split.needed)
    images = trial.split.training_images(prepared), trial.split.held_out_images(prepared)
    checkpoints = Checkpoints(place.store, f"trials/{planned.signature}")
    began = time.monotonic()
    trained = loop.train(loop.Training(trial, *images, torch.device("cpu")), checkpoints)
    first = time.monotonic() - began
    (row,) = place.launch([trial])
    both = time.monotonic() - began
    run = lookup.find(place.record, row["run_id"])
    assert [step for step, _ in place.record.history(run.run_id, "loss")] == [e.images_seen for e in trained.history]
    assert first / 2 < 32 * 100 / run.metrics["images_per_second"] < both


RECIPE = {"schedule": "constant", "optimizer": "muon", "learning_rate": 0.01, "ema": 0.05}


@pytest.mark.slow
def test_a_longer_sweep_pays_the_difference_only(ray_here: None, place: Place, tmp_path: Path) -> None:
    """The launch of the first half is killed, and that of the second."""
    flat: dict[str, Any] = {**LONG, **RECIPE}
    half, whole = flat["images"] // 2, flat["images"]
    for images, begins in ((half, 0), (whole, half)):
        planned = plan([Trial.of({**flat, "images": images})], place.store, place.record)
        assert [p.images_reused for p in planned] == [begins]
        process = sweep_process(place, **{**RECIPE, "images": images})
        while Checkpoints(place.store, f"trials/{planned[0].signature}").step * 32 <= begins:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.kill()
        process.communicate()
        (row,) = place.launch([Trial.of({**flat, "images": images})], sweep="demo")
        assert row["state"] == "finished" and row["images_reused"] == begins
    (tmp_path / "other").mkdir()
    other = Place(tmp_path / "other")
    said: list[str] = []
    (fresh,) = other.launch([Trial.of(flat)], say=said.append)
    assert fresh["images_reused"] == 0 and not any("reused" in line for line in said)
    assert_same_result((other, fresh["run_id"]), (place, row["run_id"]))


def test_a_launch_in_a_terminal_shows_its_trial_holds_its_lease_and_stops_at_ctrl_c(place: Place) -> None:
    """A trial whose lease a living launch holds is left alone."""
    with Terminal([*SWEEP_COMMAND, *launch_words(place, images=10**7)]) as first:
        first.wait_for(r"16x16-N4-A.* / 10M +[1-9]")
        trial = Trial.of({**LONG, "images": 10**7})
        said: list[str] = []
        (row,) = place.launch([trial], say=said.append)
        assert said == ["1 trials: 1 running; nothing to train"]
        assert row["state"] == "running" and not row["trained"]
        (run,) = place.record.by_id([row["run_id"]])
        assert run.images_per_second > 0 and run.images_seen > 0
        checkpoints = Checkpoints(place.store, f"trials/{row['signature']}")
        before = checkpoints.step
        first.type("\x03")
        assert first.end() == 130 and "the same command goes on from here" in first.shown
        assert checkpoints.step > before and not place.store.names("launches")
    (planned,) = plan([trial], place.store, place.record)
    assert planned.state == "interrupted" and planned.run and planned.run.reason == "stopped by the user"
    assert planned.run.images_seen == 32 * checkpoints.step, "what the next launch goes on from"


def test_a_launch_that_another_has_forestalled_ends_with_nothing_trained(ray_here: None, place: Place) -> None:
    """The other holds the lease and has not made its run yet."""
    trial = Trial.of({**TINY, "n_train": 1})
    (planned,) = plan([trial], place.store, place.record)
    with leases.heartbeat(place.store) as other:
        assert leases.acquire(place.store, planned.signature, other)
        (row,) = place.launch([trial])
    assert row["state"] == "running" and row["run_id"] is None and not row["trained"]


def test_a_stopped_trial_keeps_its_place_and_goes_on_at_retry(
    undisturbed: tuple[Place, str], place: Place, command: Callable[..., Ended]
) -> None:
    first = sweep_process(place)
    while not list((place.storage / "trials").glob("*/step-*")):
        assert first.poll() is None, first.communicate()
        time.sleep(0.1)
    ended = command("gahb-sweep", "stop", "demo", *place.flags)
    assert ended.code == 0 and "1 running trials will stop" in ended.err
    out, _ = first.communicate(timeout=120)
    (row,) = json.loads(out)["trials"]
    assert first.returncode == 0 and row["state"] == "interrupted" and row["reason"] == "stopped by the user"
    step = Checkpoints(place.store, f"trials/{row['signature']}").step
    assert 0 < step < 1200
    ended = command("gahb-sweep", "retry", row["name"], "--json", *place.flags)
    (row,) = ended.json["trials"]
    assert ended.code == 0 and row["state"] == "finished"
    assert_same_result(undisturbed, (place, row["run_id"]))
    workers = command("gahb-sweep", "logs", row["run_id"], "--json", *place.flags).json["workers"]
    assert [worker["log"].strip().splitlines()[-1].split(" ", 3)[3] for worker in workers] == ["stopped", "finished"]
    assert f"try 1 from step {step}" in workers[1]["log"] and "images_seen 38,400, loss " in workers[1]["log"]
    assert "nothing to stop" in command("gahb-sweep", "stop", "demo", *place.flags).err
