from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gahb.denoising import noise
from gahb.models.layers import BiasFreeBatchNorm
from gahb.training import cuda_graph, step
from gahb.trial import Trial


def trial(**changes: object) -> Trial:
    flat = {"dataset": "c_alpha", "resolution": 8, "width": 4, "blocks": 1, "n_train": 3, "batch_size": 8}
    return Trial.of({**flat, "images": 8 * 1000, **changes})


IMAGES = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_loss_is_the_papers() -> None:
    class Zero(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        def forward(self, y: Tensor) -> Tensor:
            return self.w * y

    noise = torch.randn(8, 1, 4, 4)
    loss = step.squared_error(Zero(), noise + 1, noise, "float32")
    torch.testing.assert_close(loss, noise.square().sum() / 8)  # sum of squares over batch size, not over pixels


def test_learning_rates() -> None:
    rates = [step.learning_rate(trial(), number) for number in range(1000)]
    assert rates[0] == rates[99] == 1e-3
    assert rates[100] == 5e-4 and rates[999] == 1e-3 / 2**9
    rates = [step.learning_rate(trial(schedule="cosine"), number) for number in (0, 500, 1000)]
    assert rates == pytest.approx([1e-3, 0.505e-3, 1e-5])
    assert {step.learning_rate(trial(schedule="constant"), number) for number in range(1000)} == {1e-3}
    warm = trial(schedule="constant", warmup=80)
    assert [step.learning_rate(warm, number) for number in (0, 4, 9, 500)] == pytest.approx([1e-4, 5e-4, 1e-3, 1e-3])


def test_a_weight_multiplies_an_images_squares() -> None:
    net, _ = step.start(trial(), torch.device("cpu"))
    noisy, target, weight = torch.randn(8, 1, 8, 8), torch.randn(8, 1, 8, 8), torch.rand(8, 1, 1, 1)
    expected = (weight * (net(noisy) - target) ** 2).sum() / 8
    found = step.squared_error(net, noisy, target, "float32", weight)
    torch.testing.assert_close(found, expected)
    assert torch.equal(
        step.squared_error(net, noisy, target, "float32", torch.ones(8, 1, 1, 1)),
        step.squared_error(net, noisy, target, "float32"),
    )


def test_the_inverse_weighting_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    sigmas = torch.tensor([1.0, 0.5, 0.01, 1e-6]).view(4, 1, 1, 1)
    batch = torch.zeros(4, 1, 8, 8)
    monkeypatch.setattr(noise, "noisy_batch", lambda *given: (batch, batch, sigmas))
    monkeypatch.setattr(step, "training_step", lambda *given: seen.append(given[-1]) or torch.zeros(()))
    chosen = trial(weighting="inverse_sigma", batch_size=4)
    net, optimizer = step.start(chosen, torch.device("cpu"))
    step.stepper(chosen, net, optimizer, IMAGES)(0)
    torch.testing.assert_close(seen[0].flatten(), torch.tensor([1.0, 2.0, 100.0, 100.0]))


def test_a_step_moves_each_running_sd_once() -> None:
    net, optimizer = step.start(trial(), torch.device("cpu"))
    seen: dict[nn.Module, Tensor] = {}

    def see(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        seen[norm] = (inputs[0].var(dim=(0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt().detach()

    norms = [module for module in net.modules() if isinstance(module, BiasFreeBatchNorm)]
    for norm in norms:
        norm.register_forward_pre_hook(see)
    expected = [torch.ones_like(norm.running_sd) for norm in norms]
    for _ in range(3):
        noisy = torch.randn(8, 1, 8, 8)
        step.training_step(step.squared_error, net, optimizer, noisy, noisy, "float32")
        expected = [0.9 * before + 0.1 * seen[norm] for before, norm in zip(expected, norms, strict=True)]
    assert norms
    for norm, running_sd in zip(norms, expected, strict=True):
        torch.testing.assert_close(norm.running_sd, running_sd)


RECIPES: list[dict[str, object]] = [
    {},
    {"ema": 0.1, "schedule": "constant", "warmup": 24},
    {"optimizer": "muon", "beta2": 0.95},
    {"optimizer": "muon", "ema": 0.05, "weighting": "inverse_sigma", "noise_law": "lognormal"},
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_state_after_a_step_comes_back(recipe: dict[str, object]) -> None:
    def taken(steps: range, seed: int, before: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        net, optimizer = step.start(trial(seed=seed, **recipe), torch.device("cpu"))
        average = step.start_average(trial(**recipe), net)
        if before:
            step.restore(net, optimizer, before, steps[0], average)
        do_step = step.stepper(trial(**recipe), net, optimizer, IMAGES, average=average)
        for number in steps:
            do_step(number)
        return {name: tensor.clone() for name, tensor in step.state(net, optimizer, average).items()}

    whole, half = taken(range(4), seed=0), taken(range(2), seed=0)
    resumed = taken(range(2, 4), seed=1, before=half)
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not any(torch.equal(whole[name], half[name]) for name in whole)


def trained(trial: Trial, numbers: range = range(4)) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The losses of steps, and the state after them."""
    net, optimizer = step.start(trial, torch.device("cpu"))
    average = step.start_average(trial, net)
    if step.graphed(trial, torch.device("cpu"), "none"):
        step.keep_rate_on(torch.device("cpu"), optimizer)
    do_step = step.stepper(trial, net, optimizer, IMAGES, average=average)
    losses = [do_step(number).clone() for number in numbers]
    return losses, step.state(net, optimizer, average)


def same(a: tuple[list[Tensor], dict[str, Tensor]], b: tuple[list[Tensor], dict[str, Tensor]]) -> bool:
    return all(map(torch.equal, a[0], b[0])) and all(torch.equal(value, b[1][name]) for name, value in a[1].items())


def test_a_step_is_noise_loss_adam_and_rate_of_its_number() -> None:
    chosen = trial(schedule="cosine")
    net, optimizer = step.start(chosen, torch.device("cpu"))
    losses = []
    for number in range(4):
        step.set_learning_rate(optimizer, step.learning_rate(chosen, number))
        draws = noise.generator("batch", chosen.seed, chosen.subset, number)
        batch = noise.noisy_batch(IMAGES, chosen.batch_size, draws)[:2]
        losses.append(step.training_step(step.squared_error, net, optimizer, *batch, "float32"))
    assert same(trained(chosen), (losses, step.state(net, optimizer)))


def run_where_a_graph_would_be(
    body: Callable[[], Tensor], warm_up: Callable[[], None], draws: torch.Generator
) -> tuple[Callable[[], None], Tensor]:
    """What `cuda_graph.record` does, with a tensor for the result and a launch that runs the step."""
    warm_up()
    result = torch.zeros(())
    return lambda: result.copy_(body().detach()), result


@pytest.mark.parametrize("changes", [{"precision": "bfloat16"}, *RECIPES])
def test_warming_up_a_graph_leaves_no_trace(changes: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graph, "record", run_where_a_graph_would_be)
    monkeypatch.setattr(step, "graphed", lambda *kind: True)
    exact = trial(learning_rate=2**-10, **{**changes, "warmup": 0})  # a rate that is the same in the tensor's float32
    recorded = trained(exact)
    monkeypatch.undo()
    assert same(trained(exact), recorded)


def test_a_graph_follows_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graph, "record", run_where_a_graph_would_be)
    monkeypatch.setattr(step, "graphed", lambda *kind: True)
    halved = trial(learning_rate=2**-10)
    recorded = trained(halved, range(99, 102))  # the rate falls after the hundredth step
    monkeypatch.undo()
    assert same(trained(halved, range(99, 102)), recorded)
    assert not same(trained(trial(learning_rate=2**-10, images=8 * 10_000), range(99, 102)), recorded)


def test_tf32_is_float32_on_a_cpu() -> None:
    assert same(trained(trial(precision="tf32")), trained(trial()))


def test_tf32_is_allowed_within_its_block_alone() -> None:
    def allowed() -> tuple[bool, bool]:
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    step.make_deterministic()
    assert allowed() == (False, False)
    with pytest.raises(KeyError), step.tensor_float_32():
        assert allowed() == (True, True)
        raise KeyError
    assert allowed() == (False, False)
