"""What a CUDA device must do. `make gpu` looks at more, and measures.

Where Ray and MLflow are missing: `python -m pytest --noconftest -m gpu tests/gahb/training/test_gpu.py`.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gahb.data.intensity import unit
from gahb.denoising import noise
from gahb.denoising.sampling import sample
from gahb.models.activation_checkpointing import Level, activation_checkpointing
from gahb.models.architectures import UNet
from gahb.models.layers import Denoiser, initialise
from gahb.storage.local import Folder
from gahb.training import cuda_graph, loop, step
from gahb.training.checkpoints import Checkpoints
from gahb.trial import Trial

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores"),  # the compiler's advice where float32 is wanted
    pytest.mark.filterwarnings("ignore:Please use the new API settings to control TF32"),  # torch 2.9 alone
]

GPU = torch.device("cuda", 0)
FAST = {"precision": "bfloat16", "compile": True}
NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"blocks": 1, "width": 16},
    "bf_cnn": {"architecture": "bf_cnn", "layers": 6, "width": 16},
    "transformer": {"architecture": "transformer", "patch": 4, "depth": 2, "width": 32, "heads": 2},
}
IMAGES = torch.randint(0, 256, (8, 1, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def trial(network: str = "unet", **changes: object) -> Trial:
    common = {"dataset": "c_alpha", "resolution": 20, "n_train": 8, "n_test": 8, "batch_size": 64, "images": 64 * 40}
    return Trial.of({**common, **NETWORKS[network], **changes})


def steps(trial: Trial, device: torch.device = GPU, level: Level = "none", count: int = 4) -> list[Tensor]:
    """The loss of the last of so many steps, and the state after it, on the CPU."""
    step.make_deterministic()
    net, optimizer = step.start(trial, device)
    activation_checkpointing(net, level)
    average = step.start_average(trial, net)
    do_step = step.stepper(trial, net, optimizer, IMAGES.to(device), level, average)
    for number in range(count):
        loss = do_step(number)
    return [tensor.detach().cpu() for tensor in (loss, *step.state(net, optimizer, average).values())]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


@pytest.fixture
def without_graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    yield lambda: monkeypatch.setattr(step, "graphed", lambda *kind: False)


RECIPE = {"optimizer": "muon", "ema": 0.05, "schedule": "constant", "weighting": "inverse_sigma"}


@pytest.mark.parametrize("network", NETWORKS)
def test_a_graph_of_a_faster_recipe_gives_the_bits_of_its_launches_one_by_one(
    network: str, without_graphs: Callable[[], None]
) -> None:
    chosen = trial(network, **FAST, **RECIPE)
    recorded = steps(chosen)
    without_graphs()
    assert same(recorded, steps(chosen))


@pytest.mark.parametrize("level", ["none", "layer", "block"])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_graph_gives_the_bits_of_its_launches_one_by_one(
    network: str, precision: str, level: Level, without_graphs: Callable[[], None]
) -> None:
    compiled = trial(network, precision=precision, compile=True)
    recorded = steps(compiled, level=level)
    without_graphs()
    assert same(recorded, steps(compiled, level=level))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_step_is_that_of_the_cpu(network: str) -> None:
    chosen = trial(network)
    noisy, target, _ = noise.noisy_batch(IMAGES, 64, noise.generator("batch"))  # a GPU draws other numbers
    gradients = []
    for device in (torch.device("cpu"), GPU):
        step.make_deterministic()
        net, optimizer = step.start(chosen, device)
        step.training_step(step.squared_error, net, optimizer, noisy.to(device), target.to(device), "float32")
        gradients.append(torch.cat([p.grad.flatten().cpu() for p in net.parameters() if p.grad is not None]))
    assert (gradients[1] - gradients[0]).norm() < 1e-4 * gradients[0].norm()


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("network", NETWORKS)
def test_compiled_steps_are_near_the_eager_ones(network: str, precision: str) -> None:
    eager, compiled = (steps(trial(network, precision=precision, compile=c)) for c in (False, True))
    torch.testing.assert_close(compiled[0], eager[0], rtol=1e-4 if precision == "float32" else 2e-2, atol=0)


def test_tf32_rounds_the_products_of_training_and_no_others() -> None:
    assert not same(steps(trial(precision="tf32", width=64)), steps(trial(width=64)))
    a = torch.randn(512, 512, device=GPU)
    assert (a.double() @ a.double() - (a @ a).double()).abs().max() < 1e-3


def test_trials_in_threads_of_their_own_have_the_same_bits_and_leave_no_memory() -> None:
    found: dict[str, list[Tensor]] = {}
    left = []
    trials = {"first": trial(**FAST), "other": trial(**FAST, seed=1), "kind": trial("bf_cnn", **FAST), "again": None}
    for name, chosen in trials.items():
        target = chosen or trial(**FAST)
        thread = threading.Thread(target=lambda name=name, chosen=target: found.update({name: steps(chosen)}))  # type: ignore[misc]
        thread.start()
        thread.join()
        torch.cuda.empty_cache()
        left.append(torch.cuda.memory_reserved())
    assert same(found["first"], found["again"]) and not same(found["first"], found["other"])
    assert left[-1] <= 1.05 * left[0]


class Killed(Exception):
    pass


class Interrupting(Checkpoints):
    def save(self, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> bool:
        written = super().save(step, tensors, facts)
        if step == 23:
            raise Killed
        return written


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("changes", [{}, {"precision": "tf32"}, FAST], ids=["float32", "tf32", "fast"])
def test_resuming_gives_the_same_bits(network: str, changes: dict[str, Any], tmp_path: Path) -> None:
    training = loop.Training(trial(network, **changes), IMAGES, IMAGES, GPU)
    whole = loop.train(training, Checkpoints(Folder(tmp_path / "whole")))
    with pytest.raises(Killed):
        loop.train(training, Interrupting(Folder(tmp_path / "cut")), loop.Options(checkpoint_seconds=0))
    resumed = loop.train(training, Checkpoints(Folder(tmp_path / "cut")))
    stored = resumed.denoiser.state_dict()
    assert all(torch.equal(value, stored[key]) for key, value in whole.denoiser.state_dict().items())
    assert resumed.history == whole.history


def test_a_graph_that_does_not_fit_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    net, optimizer = step.start(trial(**FAST), GPU)
    draws = torch.Generator(GPU)

    def body() -> Tensor:
        if torch.cuda.is_current_stream_capturing():
            kept.append(torch.empty(2**28, device=GPU))
            return torch.empty(2**50, device=GPU)
        return torch.zeros((), device=GPU)

    kept: list[Tensor] = []
    before = torch.cuda.memory_reserved()
    graph = cuda_graph.CudaGraph(body, net, optimizer, draws)
    with pytest.raises(torch.OutOfMemoryError):
        graph()
    kept.clear()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before + 2**22
    assert not torch.cuda.is_current_stream_capturing()
    assert torch.zeros(3, device=GPU).sum().item() == 0
    assert steps(trial(**FAST), count=2)[0].isfinite()


def test_images_of_16_bits_are_read_as_on_the_cpu() -> None:
    images = torch.arange(0, 65536, 16, dtype=torch.int32).to(torch.uint16).view(-1, 1, 8, 8)
    rows = torch.tensor([3, 0, 63])
    assert torch.equal(unit(images.to(GPU)).cpu(), unit(images))
    assert torch.equal(unit(images.to(GPU), rows.to(GPU)).cpu(), unit(images, rows))
    noisy, _, _ = noise.noisy_batch(images.to(GPU), 16, noise.generator("test", device=GPU))
    assert noisy.isfinite().all() and noisy.dtype == torch.float32


def test_samples_are_those_of_the_cpu() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(UNet(1, 8).build().apply(initialise)).eval()
    here = sample(denoiser, 8, (1, 16, 16), mean=0.5)
    there = sample(denoiser.to(GPU), 8, (1, 16, 16), mean=0.5, device=GPU)
    torch.testing.assert_close(here.images, there.images, atol=1e-3, rtol=0)
