from typing import Any

import pytest
import torch
from torch import nn

from gahb.training import step
from gahb.training.muon import Muon, orthogonal
from gahb.trial import Trial

CPU = torch.device("cpu")
FLAT: dict[str, Any] = {"dataset": "c_alpha", "resolution": 8, "n_train": 3, "optimizer": "muon", "images": 80}


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 5, 20), (3, 20, 5)])
def test_singular_values_come_near_1_and_vectors_stay(shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(shape[0], shape[1], min(shape[1:]), generator=generator))
    v, _ = torch.linalg.qr(torch.randn(shape[0], shape[2], min(shape[1:]), generator=generator))
    values = torch.logspace(-1, 0, min(shape[1:]))
    found = orthogonal(u @ torch.diag_embed(values.expand(shape[0], -1)) @ v.mT)
    inside = u.mT @ found @ v
    assert found.shape == shape
    torch.testing.assert_close(u @ inside @ v.mT, found, atol=1e-5, rtol=0)
    diagonal = inside.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(inside, torch.diag_embed(diagonal), atol=1e-5, rtol=0)
    assert diagonal.min() > 0.6 and diagonal.max() < 1.3


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon to compare with")
def test_an_update_is_torchs_on_matrices() -> None:
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 9, bias=False), nn.Linear(9, 6, bias=False), nn.Linear(6, 6, bias=False))
    before = [layer.weight.detach().clone() for layer in net]
    theirs = [nn.Parameter(weight.clone()) for weight in before]
    ours = Muon(net, 0.02, (0.9, 0.999), image_channels=1)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0, adjust_lr_fn="match_rms_adamw")
    for layer in net:
        ours.state[layer.weight] = {"momentum_buffer": torch.zeros_like(layer.weight)}
    for _ in range(3):
        for layer, other in zip(net, theirs, strict=True):
            layer.weight.grad = torch.randn(layer.weight.shape, generator=generator)
            other.grad = layer.weight.grad.clone()
        ours.adam.step = lambda: None  # type: ignore[method-assign, assignment]  # it has nothing to train
        ours.step()
        reference.step()
    for layer, other, start in zip(net, theirs, before, strict=True):
        moved = other.detach() - start
        # they compute in bfloat16
        assert (layer.weight.detach() - other.detach()).norm() < 0.02 * moved.norm()


@pytest.mark.parametrize(
    ("changes", "by_adam"),
    [
        ({"blocks": 1, "width": 4}, 2),
        ({"blocks": 1, "width": 4, "dataset": "x.npy", "color": True}, 2),
        ({"architecture": "bf_cnn", "layers": 4, "width": 5}, 2),
        ({"architecture": "transformer", "patch": 2, "depth": 1, "width": 8, "heads": 2}, 0),
    ],
)
def test_all_kernels_are_made_orthogonal_but_those_at_the_image(changes: dict[str, Any], by_adam: int) -> None:
    net, optimizer = step.start(Trial.of({**FLAT, **changes}), CPU)
    assert isinstance(optimizer, Muon)
    kernels = [p for p in net.parameters() if p.ndim > 1 and p.numel() > max(p.shape)]
    others = [p for p in kernels if not optimizer.is_orthogonal(p)]
    assert len(others) == by_adam and len(kernels) > by_adam
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in net.parameters()} and len(trained) == len(set(map(id, trained)))


def test_the_size_of_an_update_is_the_rates() -> None:
    net, optimizer = step.start(Trial.of({**FLAT, "blocks": 1, "width": 8}), CPU)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    step.set_learning_rate(optimizer, 0.01)
    noisy = torch.randn(8, 1, 8, 8)
    step.training_step(step.squared_error, net, optimizer, noisy, noisy, "float32")
    for name, p in net.named_parameters():
        moved = (p.detach() - before[name]).square().mean().sqrt().item()
        if isinstance(optimizer, Muon) and optimizer.is_orthogonal(p):
            assert 0.7 < moved / (0.2 * 0.01) < 1.2, name  # rank min(r, c): 0.2 η sqrt(max) · sqrt(min / rc)
        else:
            assert moved == pytest.approx(0.005, rel=0.05), name
