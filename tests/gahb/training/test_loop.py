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


@pytest.mark.parametrize(
    "changes", [{}, {"architecture": "bf_cnn", "layers": 4, "blocks": None}, {"schedule": "cosine"}, TRANSFORMER]
)
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
    seen: list[list[float]] = []
    run(trial(), images, tmp_path, on_evaluation=lambda rows: seen.append([row.images_seen for row in rows]))
    assert seen == [[128], [128, 256], [128, 256, 320]]


def test_a_loss_that_is_not_finite_ends_the_training(images: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    with pytest.raises(loop.Diverged, match="after 16 of 40 steps"):
        run(trial(learning_rate=1e30), images, tmp_path)
    assert Checkpoints(Folder(tmp_path)).latest() is None


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
