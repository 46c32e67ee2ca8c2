"""What a GPU would be asked to do in a step of training, on tensors without numbers; see tests/fake_cuda.py."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gahb.data import similarity
from gahb.denoising import jacobian, psnr, sampling
from gahb.denoising.sampler import Sampler
from gahb.models.activation_checkpointing import Level, activation_checkpointing
from gahb.models.layer_costs import LEVELS
from gahb.models.layers import Denoiser
from gahb.training import cuda_graph, step
from gahb.trial import Trial
from tests.fake_cuda import Operations, fake_cuda

NETWORKS = {
    "unet": {"blocks": 1, "width": 4},
    "bf_cnn": {"architecture": "bf_cnn", "layers": 4, "width": 4},
    "transformer": {"architecture": "transformer", "patch": 2, "depth": 1, "width": 8, "heads": 2},
}


def trial(network: str, **changes: object) -> Trial:
    common = {"dataset": "c_alpha", "resolution": 8, "n_train": 4, "n_test": 4, "batch_size": 8, "images": 80}
    return Trial.of({**common, **NETWORKS[network], **changes})


def stepper(trial: Trial, device: torch.device, level: Level = "none") -> tuple[Callable[[int], Tensor], nn.Module]:
    net, optimizer = step.start(trial, device)
    activation_checkpointing(net, level)
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8, device=device)
    return step.stepper(trial, net, optimizer, images, level, step.start_average(trial, net)), net


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Operations]:
    """The operations of each launch, where a graph would be launched."""
    launches: list[Operations] = []

    def record(
        body: Callable[[], Tensor], warm_up: Callable[[], None], draws: Any
    ) -> tuple[Callable[[], None], Tensor]:
        warm_up()

        def launch() -> None:
            with Operations() as operations:
                body()
            launches.append(operations)

        return launch, torch.zeros((), device=draws.device)

    monkeypatch.setattr(step, "compiled", lambda function, *kind: function)
    monkeypatch.setattr(cuda_graph, "record", record)
    monkeypatch.setattr(cuda_graph, "WARM_UP", 1)
    return launches


CASES = [("none", "float32"), ("none", "tf32"), *((level, "bfloat16") for level in LEVELS if level != "host")]


@pytest.mark.parametrize(("level", "precision"), CASES)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_graph_can_hold_a_step(network: str, level: Level, precision: str, recorded: list[Operations]) -> None:
    with fake_cuda() as device:
        do_step, _ = stepper(trial(network, precision=precision, compile=True), device, level)
        do_step(0)
        do_step(9)
    first, later = recorded
    assert any("_fused_adam_.tensor_lr" in operation for operation in first.seen)
    assert any("aten.randn" in operation for operation in first.seen)
    assert first.unfit == [] and first.seen == later.seen


RECIPE = {"optimizer": "muon", "ema": 0.05, "weighting": "inverse_sigma", "schedule": "constant"}


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # where a network is copied
@pytest.mark.parametrize("law", ["lognormal", "log_uniform"])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_graph_can_hold_a_step_of_a_faster_recipe(network: str, law: str, recorded: list[Operations]) -> None:
    with fake_cuda() as device:
        chosen = trial(network, precision="bfloat16", compile=True, noise_law=law, **RECIPE)
        do_step, _ = stepper(chosen, device)
        do_step(0)
        do_step(9)
    first, later = recorded
    for part in ("_fused_adam_.tensor_lr", "aten.baddbmm", "aten.lerp_.Tensor"):
        assert any(part in operation for operation in first.seen)
    assert first.unfit == [] and first.seen == later.seen


def test_an_eager_step_and_saved_tensors_on_the_host_are_not_recorded(recorded: list[Operations]) -> None:
    with fake_cuda() as device:
        for settings, level in (({}, "none"), ({"precision": "bfloat16", "compile": True}, "host")):
            for network in NETWORKS:
                do_step, _ = stepper(trial(network, **settings), device, level)  # type: ignore[arg-type]
                do_step(0)
    assert recorded == []


BAD: dict[str, Callable[[Tensor], object]] = {
    "a number on the host": lambda x: x.cpu(),
    "a number of the host": lambda x: x + torch.tensor([1.0]).to(x.device),
    "a mask": lambda x: x[x > 0],
    "a look": lambda x: torch.equal(x, x),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_a_graph_cannot_hold_is_seen(bad: str) -> None:
    with fake_cuda() as device:
        x = torch.zeros(3, device=device)
        with Operations() as operations:
            try:
                BAD[bad](x)
            except Exception:  # the mode's own, as it has no numbers
                assert operations.unfit
    assert operations.unfit


def test_two_devices_and_two_types_are_seen() -> None:
    with fake_cuda() as device:
        x = torch.zeros(1, 3, 3, device=device)
        with pytest.raises(RuntimeError, match="device"):
            x + torch.zeros(1, 3, 3)
        with pytest.raises(RuntimeError, match="type"):
            x.bmm(x.bfloat16())


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_is_evaluated(network: str) -> None:
    with fake_cuda() as device:
        net, _ = step.start(trial(network), device)
        images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8, device=device)
        for _, clean, noisy in psnr.noisy_levels(images, 6):
            assert psnr.psnr(clean, Denoiser(net.eval())(noisy)).device == device


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # where a range is an index
@pytest.mark.parametrize("network", NETWORKS)
def test_a_jacobian_is_found(network: str) -> None:
    with fake_cuda() as device:
        net, _ = step.start(trial(network), device)
        y = torch.zeros(1, 1, 8, 8, device=device)
        found = jacobian.full(Denoiser(net.eval()), y)
        assert found.device == device and found.shape == (64, 64)


@pytest.mark.parametrize("network", NETWORKS)
def test_samples_are_drawn(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "LEAST_CAP", 4)
    monkeypatch.setattr(Tensor, "__bool__", lambda tensor: False)  # none of them ends
    with fake_cuda() as device:
        net, _ = step.start(trial(network), device)
        samples = sampling.sample(
            Denoiser(net.eval()), 3, (1, 8, 8), mean=0.5, device=device, sampler=Sampler(h=1, beta=1)
        )
    assert samples.images.device.type == "cpu" and samples.images.shape == (3, 1, 8, 8)


def test_images_are_compared() -> None:
    with fake_cuda() as device:
        samples = torch.zeros(3, 1, 8, 8, device=device)
        images = torch.zeros(5, 1, 8, 8, dtype=torch.uint8, device=device)
        for found in (
            similarity.cosine(samples, samples, centred=True),
            similarity.mismatched_cosine(samples, samples, centred=True),
        ):
            assert found.device == device
        search = similarity._ClosestSearch(samples, images, centred=True)
        for boxes in similarity.COARSENESS:
            assert search._bounds(images, boxes).device == device
        search._compute(search.everyone, search.everyone)
        assert search.best.device == search.rows.device == device
