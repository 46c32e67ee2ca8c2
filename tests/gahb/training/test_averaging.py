import pytest
import torch
from torch import nn

from gahb.models.layers import BiasFreeBatchNorm
from gahb.training.averaging import WeightAverage, exponent


@pytest.mark.parametrize("length", [0.02, 0.05, 0.1, 0.25])
def test_the_exponent_gives_the_length(length: float) -> None:
    gamma = exponent(length)
    assert (gamma + 1) ** 0.5 / ((gamma + 2) * (gamma + 3) ** 0.5) == pytest.approx(length)


@pytest.mark.parametrize("length", [0.05, 0.25])
def test_steps_weigh_as_a_power_of_their_time(length: float) -> None:
    """Weights that are 1 at step τ in place τ, and 0 elsewhere, average to what each step weighs."""
    steps = 2000
    net = nn.Linear(steps, 1, bias=False)
    average = WeightAverage(net, length)
    for number in range(steps):
        with torch.no_grad():
            net.weight.zero_()[0, number] = 1
        average.set_share(number)
        average.update()
    weighs = average.values["weight"].flatten()
    tau = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    mean = (weighs * tau).sum()
    assert weighs.sum().item() == pytest.approx(1)
    assert ((weighs * tau.square()).sum() - mean**2).sqrt().item() == pytest.approx(length, rel=0.01)
    power = tau ** exponent(length)
    torch.testing.assert_close(weighs, power / power.sum(), rtol=0, atol=0.02 * weighs.max().item())


def test_running_sds_are_averaged_and_the_trained_network_is_left_alone() -> None:
    net = nn.Sequential(BiasFreeBatchNorm(2))
    average = WeightAverage(net, 0.1)
    for number, value in enumerate((1.0, 2.0, 4.0)):
        net[0].running_sd.fill_(value)
        average.set_share(number)
        average.update()
    averaged = average.net()
    assert not averaged.training and net.training
    assert 1 < averaged[0].running_sd.mean().item() < 4  # type: ignore[index]
    assert (net[0].running_sd == 4).all()
    assert not any(t.data_ptr() == n.data_ptr() for t, n in zip(averaged.buffers(), net.buffers(), strict=True))


def test_small_shares_are_not_lost_in_rounding() -> None:
    """At step 10⁶ a step weighs 2·10⁻⁵; float32 would lose a fifth of what the averages should move."""
    net = nn.Linear(1, 1, bias=False)
    average = WeightAverage(net, 0.05)
    with torch.no_grad():
        net.weight.fill_(1.0)
    average.values["weight"].fill_(1 - 1e-4)
    for number in range(10**6, 10**6 + 1000):
        average.set_share(number)
        average.update()
    left = 1 - average.values["weight"].item()
    assert left == pytest.approx(1e-4 * (1 + 1000 / 10**6) ** -(exponent(0.05) + 1), rel=1e-4)
