import pytest
import torch
from torch import Tensor, nn

from gahb.models.layers import BiasFreeBatchNorm
from gahb.training import step
from gahb.trial import Trial


def trial(**changes: object) -> Trial:
    flat = {"dataset": "c_alpha", "resolution": 8, "width": 4, "blocks": 1, "n_train": 3, "batch_size": 8}
    return Trial.of({**flat, "images": 8 * 1000, **changes})


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


def test_the_state_after_a_step_comes_back() -> None:
    def taken(steps: range, net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        for number in steps:
            noisy = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(number))
            step.training_step(step.squared_error, net, optimizer, noisy, noisy, "float32")
        return {name: tensor.clone() for name, tensor in step.state(net, optimizer).items()}

    cpu = torch.device("cpu")
    whole = taken(range(4), *step.start(trial(), cpu))
    half = taken(range(2), *step.start(trial(), cpu))
    net, optimizer = step.start(trial(seed=1), cpu)
    step.restore(net, optimizer, half, 2)
    resumed = taken(range(2, 4), net, optimizer)
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)
