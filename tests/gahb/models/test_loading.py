import pytest
import torch
from torch import Tensor

from gahb.errors import UserError
from gahb.models.architectures import BFCNN, Architecture, Transformer, UNet
from gahb.models.layers import initialise
from gahb.models.loading import fit

SMALL = [UNet(1, 4), UNet(2, 4), BFCNN(5, 4), Transformer(patch=2, depth=1, width=8, heads=1)]


def weights(architecture: Architecture) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return architecture.build().apply(initialise).state_dict()


@pytest.mark.parametrize("architecture", SMALL)
def test_a_network_with_its_own_weights_is_the_same_function(architecture: Architecture) -> None:
    net = architecture.build()
    net.load_state_dict(weights(architecture))
    denoiser = fit(architecture, weights(architecture))
    y = torch.randn(2, 1, 8, 8)
    assert not denoiser.training and torch.equal(denoiser(y), y - net.eval()(y))


def test_weights_of_half_precision_become_float32() -> None:
    half = {key: tensor.half() for key, tensor in weights(UNet(1, 4)).items()}
    state = fit(UNet(1, 4), half).net.state_dict()
    assert all(state[key].dtype == torch.float32 and torch.equal(state[key], half[key].float()) for key in half)


@pytest.mark.parametrize("other", SMALL[1:])
def test_weights_of_another_network_are_refused(other: Architecture) -> None:
    with pytest.raises(UserError, match=r"looks like a UNet but its .* is expected"):
        fit(SMALL[0], weights(other))


def test_one_weight_too_few_or_too_many_or_of_another_shape_is_named() -> None:
    good = weights(UNet(1, 4))
    key = sorted(good)[3]
    for change, message in (
        ({k: v for k, v in good.items() if k != key}, f"its {key} is missing where"),
        ({**good, "more": torch.ones(2)}, r"its more is \(2,\) where nothing is expected"),
        ({**good, key: torch.ones(7)}, rf"its {key} is \(7,\) where"),
    ):
        with pytest.raises(UserError, match=message):
            fit(UNet(1, 4), change)
