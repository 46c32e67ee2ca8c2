import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from gahb.denoising import noise
from gahb.models.activation_checkpointing import recomputation
from gahb.training import loop
from gahb.trial import Trial

CPU = torch.device("cpu")
UNET = {"blocks": 2, "width": 8}
BF_CNN = {"architecture": "bf_cnn", "layers": 21, "width": 8}
TRANSFORMER = {"architecture": "transformer", "patch": 2, "depth": 4, "width": 16, "heads": 2}


def trial(**changes: object) -> Trial:
    common = {"dataset": "c_alpha", "resolution": 16, "n_train": 4, "n_test": 4, "batch_size": 8, "images": 64}
    return Trial.of({**common, **changes})


def batch(trial: Trial, step: int) -> tuple[Tensor, Tensor]:
    images = torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8, generator=noise.generator("images"))
    return noise.noisy_batch(images, trial.batch_size, noise.generator("batch", step))


def course(trial: Trial, recompute: bool, loss_of: loop.Loss) -> list[Tensor]:
    """Loss, gradients, running standard deviations and weights after each of four steps."""
    net, optimizer = loop.start(trial, CPU)
    seen = []
    for step in range(4):
        loss = loop.training_step(loss_of, net, optimizer, *batch(trial, step), trial.precision, recompute)
        gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
        seen += [tensor.clone() for tensor in (loss, *gradients, *net.state_dict().values())]
    return seen


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("network", [UNET, BF_CNN, TRANSFORMER], ids=["unet", "bf_cnn", "transformer"])
def test_recomputation_changes_no_bit(network: dict, precision: str) -> None:
    small = trial(precision=precision, **network)
    plain, spared = (course(small, recompute, loop.squared_error) for recompute in (False, True))
    assert len(plain) == len(spared) and all(map(torch.equal, plain, spared))


@pytest.mark.slow
def test_compiled_recomputation_stays_close() -> None:
    small = trial(precision="bfloat16", compile=True, **UNET)
    plain, spared = (course(small, recompute, loop.compiled_loss(small, CPU, recompute)) for recompute in (False, True))
    for a, b in zip(plain, spared, strict=True):
        torch.testing.assert_close(a, b, atol=2e-2 * a.abs().max().item(), rtol=0)


@pytest.mark.parametrize(
    ("network", "ratio"), [(UNET, 4.5), (BF_CNN, 6), (TRANSFORMER, 12)], ids=["unet", "bf_cnn", "transformer"]
)
def test_less_is_kept_for_backward(network: dict, ratio: float) -> None:
    small = trial(**network)
    net, _ = loop.start(small, CPU)
    weights = {parameter.data_ptr() for parameter in net.parameters()}

    def kept(recompute: bool) -> int:
        storages = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with recomputation(recompute), saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = loop.squared_error(net, *batch(small, 0), "float32")
        del loss
        return sum(size for pointer, size in storages.items() if pointer not in weights)

    assert kept(False) > ratio * kept(True)
