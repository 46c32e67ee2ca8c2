from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gahb.errors import UserError
from gahb.storage.local import Folder
from gahb.training import cost, loop
from gahb.training.checkpoints import Checkpoints
from gahb.trial import Trial

CPU = torch.device("cpu")


def trial(**changes: object) -> Trial:
    flat = {
        "dataset": "c_alpha", "resolution": 8, "width": 4, "blocks": 1, "n_train": 3, "n_test": 5, "batch_size": 8,
        "images": 8 * 40,
    }  # fmt: skip
    return Trial.of({key: value for key, value in {**flat, **changes}.items() if value is not None})


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 1, 8, 8), (5, 1, 8, 8))
    train, test = (torch.randint(0, 256, s, dtype=torch.uint8, generator=generator) for s in shapes)
    return train, test


def run(trial: Trial, images: tuple[Tensor, Tensor], folder: Path, **options: Any) -> loop.Trained:
    return train(trial, images, Checkpoints(Folder(folder)), **options)


def train(trial: Trial, images: tuple[Tensor, Tensor], checkpoints: Checkpoints, **options: Any) -> loop.Trained:
    return loop.train(loop.Training(trial, *images, CPU), checkpoints, loop.Options(**options))


def weights(trained: loop.Trained) -> dict[str, Tensor]:
    return trained.denoiser.state_dict()


class Killed(Exception):
    pass


TRANSFORMER = {"architecture": "transformer", "patch": 2, "depth": 2, "width": 16, "heads": 2, "blocks": None}


MUON = {"optimizer": "muon", "schedule": "constant", "learning_rate": 0.01, "ema": 0.1}


def test_each_step_is_told_from_where_it_resumes(images: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    control, told = loop.Control(), list[int]()

    def note(images_seen: int) -> None:
        assert type(images_seen) is int, "no number of the device's, which would have to wait for it"
        told.append(images_seen)
        if len(told) == 10:
            control.halt.set()

    with pytest.raises(loop.Halted):
        run(trial(), images, tmp_path, on_step=note, control=control)
    run(trial(), images, tmp_path, on_step=note)
    assert told == list(range(8, 8 * 40 + 1, 8))


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"architecture": "bf_cnn", "layers": 4, "blocks": None}, {"schedule": "cosine"}, TRANSFORMER, MUON,
        {**TRANSFORMER, "ema": 0.05, "warmup": 80, "noise_law": "log_uniform", "evaluations": 3},
    ],
)  # fmt: skip
def test_resuming_gives_the_same_bits(changes: dict, images: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    interrupted_trial = trial(**changes)
    whole = run(interrupted_trial, images, tmp_path / "whole")

    class Interrupting(Checkpoints):
        def save(self, step: int, tensors: dict[str, Tensor], facts: dict) -> None:
            super().save(step, tensors, facts)
            if step in (1, 13, 32):
                raise Killed

    for _ in range(3):
        with pytest.raises(Killed):
            train(interrupted_trial, images, Interrupting(Folder(tmp_path / "cut")), checkpoint_seconds=0)
    resumed = run(interrupted_trial, images, tmp_path / "cut", checkpoint_seconds=0)
    assert all(torch.equal(value, weights(resumed)[key]) for key, value in weights(whole).items())
    assert resumed.history == whole.history


def test_a_finished_training_resumes_to_its_own_result(images: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    first, second = run(trial(), images, tmp_path), run(trial(), images, tmp_path)
    assert all(torch.equal(value, weights(second)[key]) for key, value in weights(first).items())
    assert first.history == second.history


def test_seed_and_subset_make_other_trainings(images: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    trained = [
        run(trial(**change), images, tmp_path / str(i)) for i, change in enumerate(({}, {"seed": 1}, {"subset": "B"}))
    ]
    convolutions = [next(iter(weights(t).values())) for t in trained]
    assert not torch.equal(convolutions[0], convolutions[1]) and not torch.equal(convolutions[0], convolutions[2])


@pytest.mark.parametrize("changes", [{}, TRANSFORMER])
def test_one_image_is_memorised(changes: dict, images: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    # N = 1: a network that has seen nothing else denoises its image far better than others
    small = trial(n_train=1, images=8 * 300, learning_rate=3e-3, schedule="cosine", **changes)
    trained = run(small, (images[0][:1], images[1]), tmp_path)
    first, last = trained.history[0].metrics(), trained.history[-1].metrics()
    assert last["psnr_gap"] > 3
    assert last["train_psnr"] > first["train_psnr"] + 2


def test_evaluations_are_log_spaced_and_end_at_the_end(images: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    assert cost.evaluation_steps(600) == [16, 32, 64, 128, 256, 512, 600]
    assert cost.evaluation_steps(64) == [16, 32, 64]
    assert cost.evaluation_steps(3) == [3]
    assert cost.evaluation_steps(70, 2) == [16, 23, 32, 45, 64, 70]
    many = cost.evaluation_steps(100, 100)
    assert many == sorted(set(many)) and {16, 17, 32, 64, 100} <= set(many)
    seen: list[list[float]] = []
    run(trial(), images, tmp_path, on_evaluation=lambda rows: seen.append([row.images_seen for row in rows]))
    assert seen == [[128], [128, 256], [128, 256, 320]]


@pytest.mark.parametrize("changes", [{}, MUON, {"beta2": 0.95, "ema": 0.05, "evaluations": 2}])
def test_a_longer_training_goes_on_from_a_shorter_one(
    changes: dict, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    longer = trial(**{"schedule": "constant", **changes})
    shorter = trial(
        **{"schedule": "constant", **changes, "images": 8 * 20}
    )  # its last evaluation is none of the longer
    run(shorter, images, tmp_path / "short")
    fresh = run(longer, images, tmp_path / "fresh")
    steps: list[int] = []

    class Counting(Checkpoints):
        def save(self, step: int, *rest: Any) -> bool:
            steps.append(step)
            return super().save(step, *rest)

    course = [Checkpoints(Folder(tmp_path / name)) for name in ("nothing", "short")]
    extended = train(longer, images, Counting(Folder(tmp_path / "long")), checkpoint_seconds=0, course=course)
    assert steps == list(range(21, 41)) and extended.images_reused == 8 * 20 and fresh.images_reused == 0
    assert all(torch.equal(value, weights(extended)[key]) for key, value in weights(fresh).items())
    assert extended.history == fresh.history
    kept = [
        Checkpoints(Folder(tmp_path / name)).weight_history(fresh.denoiser.net.state_dict())
        for name in ("long", "fresh")
    ]
    assert kept[0].keys() == kept[1].keys() == {evaluation.images_seen for evaluation in fresh.history}
    assert all(torch.equal(value, kept[1][seen][key]) for seen in kept[0] for key, value in kept[0][seen].items())
    again = run(longer, images, tmp_path / "long", course=course)
    assert again.images_reused == 8 * 20 and again.history == fresh.history


def test_a_training_does_not_start_from_beyond_its_end_or_from_what_is_damaged(
    images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    run(trial(schedule="constant"), images, tmp_path / "long")
    shorter = trial(schedule="constant", images=8 * 20)
    fresh = run(shorter, images, tmp_path / "fresh")
    course = [Checkpoints(Folder(tmp_path / "long"))]
    assert run(shorter, images, tmp_path / "short", course=course).images_reused == 0
    for file in (tmp_path / "fresh").glob("step-*"):
        file.write_bytes(b"cut off")
    longer = run(
        trial(schedule="constant"), images, tmp_path / "other", course=[Checkpoints(Folder(tmp_path / "fresh"))]
    )
    assert longer.images_reused == 0 and fresh.history[0] == longer.history[0]


def test_what_is_evaluated_and_kept_is_the_average(images: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    averaged, plain = (run(trial(schedule="constant", ema=e), images, tmp_path / str(e)) for e in (0.1, 0.0))
    _, tensors, _ = Checkpoints(Folder(tmp_path / "0.1")).latest() or (0, {}, {})
    for key, value in averaged.denoiser.net.state_dict().items():
        assert torch.equal(value, tensors[f"average:{key}"].float())
        assert torch.equal(tensors[key], plain.denoiser.net.state_dict()[key])  # the training itself is the same
        assert not torch.equal(value, tensors[key])
    assert averaged.history != plain.history


def test_a_training_ends_when_it_has_settled(images: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    """Where the rate is all but 0 nothing changes, and an evaluation has to be four times as far as the first."""
    still = trial(schedule="constant", learning_rate=1e-9, until="settled", images=8 * 1000)
    trained = run(still, images, tmp_path / "still")
    assert [evaluation.images_seen for evaluation in trained.history] == [128, 256, 512]
    assert Checkpoints(Folder(tmp_path / "still")).step == 64
    assert run(still, images, tmp_path / "still").history == trained.history
    moving = run(trial(schedule="constant", learning_rate=3e-3, until="settled"), images, tmp_path / "moving")
    assert moving.history[-1].images_seen == 8 * 40


def test_a_loss_that_is_not_finite_ends_the_training(images: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    with pytest.raises(loop.Diverged, match="after 16 of 40 steps"):
        run(trial(learning_rate=1e30), images, tmp_path)
    assert Checkpoints(Folder(tmp_path)).latest() is None


def test_a_training_whose_psnr_falls_below_zero_has_diverged(images: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    wild = trial(optimizer="muon", schedule="constant", learning_rate=0.1, images=8 * 320, evaluations=2, **TRANSFORMER)
    with pytest.raises(loop.Diverged, match=r"the train PSNR fell from \d.* to -\d.* steps; lower learning_rate"):
        run(wild, images, tmp_path)


@pytest.mark.parametrize("changes", [{}, TRANSFORMER])
def test_bfloat16_stays_close(changes: dict, images: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    whole, half = (run(trial(precision=p, **changes), images, tmp_path / p) for p in ("float32", "bfloat16"))
    psnr = [trained.history[-1].metrics()["test_psnr"] for trained in (whole, half)]
    assert psnr[0] != psnr[1] and abs(psnr[0] - psnr[1]) < 0.5


def test_checkpoints_take_a_small_share_of_the_time() -> None:
    assert loop.checkpoint_pause(60, 0.5) == 60
    assert 10 / (10 + loop.checkpoint_pause(60, 10)) == pytest.approx(loop.MOST_ON_CHECKPOINTS)
    assert loop.checkpoint_pause(0, 10) == 0


def test_without_a_compiler_nothing_starts(
    images: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"compile=true needs a C\+\+ compiler, and there is no g\+\+"):
        run(trial(compile=True), images, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"precision": "bfloat16"}, TRANSFORMER])
def test_compiled_training_resumes_to_the_same_bits_and_stays_close(
    changes: dict, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    compiled = trial(compile=True, **changes)
    whole = run(compiled, images, tmp_path / "whole")

    class Interrupting(Checkpoints):
        def save(self, step: int, tensors: dict[str, Tensor], facts: dict) -> None:
            super().save(step, tensors, facts)
            if step == 13:
                raise Killed

    with pytest.raises(Killed):
        train(compiled, images, Interrupting(Folder(tmp_path / "cut")), checkpoint_seconds=0)
    torch.compiler.reset()  # as in another process
    resumed = run(compiled, images, tmp_path / "cut")
    assert all(torch.equal(value, weights(resumed)[key]) for key, value in weights(whole).items())
    eager = run(trial(**changes), images, tmp_path / "eager")
    psnr = [trained.history[-1].metrics()["test_psnr"] for trained in (whole, eager)]
    assert abs(psnr[0] - psnr[1]) < 0.5


@pytest.mark.slow
def test_trials_of_one_kind_compile_once(images: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    run(trial(compile=True), images, tmp_path / "first")
    with torch.compiler.set_stance("fail_on_recompile"):
        run(trial(compile=True, seed=1, subset="B", learning_rate=2e-3), images, tmp_path / "second")
