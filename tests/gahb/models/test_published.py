"""The authors' files are rebuilt here from their names and shapes, and evaluated with torch.nn.functional alone."""

import argparse
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, relu

from gahb.errors import UserError
from gahb.models import published
from gahb.models.architectures import BFCNN, Architecture, UNet
from gahb.models.layers import Denoiser
from gahb.models.loading import fit
from tests.helpers import Payload, Weights, bf_cnn, dncnn, unet


def normalise(w: Weights, name: str, x: Tensor) -> Tensor:
    return x / w[f"{name}.running_sd"] * w[f"{name}.gammas"]


def run_unet(w: Weights, y: Tensor, blocks: int) -> Tensor:
    def block(name: str, x: Tensor) -> Tensor:
        for i in (0, 3):
            x = relu(normalise(w, f"{name}.{i + 1}", conv2d(x, w[f"{name}.{i}.weight"], padding=1)))
        return x

    skips = []
    x = y
    for b in range(blocks):
        if b == 0:
            x = relu(conv2d(x, w["encoder.0.0.weight"], padding=1))
            x = relu(normalise(w, "encoder.0.3", conv2d(x, w["encoder.0.2.weight"], padding=1)))
        else:
            x = block(f"encoder.{b}", x)
        skips.append(x)
        x = avg_pool2d(x, 2)
    x = block("mid_block", x)
    for b in range(blocks - 1, -1, -1):
        x = torch.cat([conv_transpose2d(x, w[f"upsample.{b}.weight"], stride=2), skips[b]], dim=1)
        if b:
            x = block(f"decoder.{b}", x)
    x = relu(normalise(w, "decoder.0.1", conv2d(x, w["decoder.0.0.weight"], padding=1)))
    return y - conv2d(x, w["decoder.0.3.weight"], padding=1)


def run_bf_cnn(w: Weights, y: Tensor, first_relu: bool, layers: int = 21) -> Tensor:
    x = conv2d(y, w["conv_layers.0.weight"], padding=1)
    x = relu(x) if first_relu else x
    for layer in range(1, layers - 1):
        kernel = w[f"conv_layers.{layer}.weight"]
        x = relu(normalise(w, f"BN_layers.{layer - 1}", conv2d(x, kernel, padding=kernel.shape[-1] // 2)))
    return y - conv2d(x, w[f"conv_layers.{layers - 1}.weight"], padding=1)


def run_dncnn(w: Weights, y: Tensor, layers: int = 20) -> Tensor:
    x = relu(conv2d(y, w["first_layer.weight"], padding=1))
    for i in range(layers - 2):
        x = conv2d(x, w[f"hidden_layer_list.{i}.weight"], padding=1)
        name = f"bn_layer_list.{i}"
        scale = w[f"{name}.weight"] / (w[f"{name}.running_var"].sqrt() + 1e-5)
        x = relu(x * scale.view(1, -1, 1, 1))
    return y - conv2d(x, w["last_layer.weight"], padding=1)


def here(path: Path) -> tuple[Denoiser, Architecture]:
    """The network of a file as a child reads it, in this process, which has torch already."""
    with path.open("rb") as file:
        architecture, tensors = published.translated(file, path.stat().st_size)
    return fit(architecture, tensors), architecture


def check(denoiser: Denoiser, theirs) -> None:  # type: ignore[no-untyped-def]
    """Output and Jacobian of the imported network are those of the weights in the file, relative to their size."""
    y = torch.rand(1, 1, 8, 8)
    expected = theirs(y)
    size = expected.abs().max().item()
    torch.testing.assert_close(denoiser(y) / size, expected / size, atol=1e-6, rtol=0)
    jacobians = [torch.autograd.functional.jacobian(f, y).reshape(64, 64) for f in (denoiser, theirs)]
    size = jacobians[1].abs().max().item()
    torch.testing.assert_close(jacobians[0] / size, jacobians[1] / size, atol=1e-5, rtol=0)


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_unet(blocks: int, prefix: str, tmp_path: Path) -> None:
    w = unet(blocks, 4)
    torch.save({prefix + key: tensor for key, tensor in w.items()}, tmp_path / "model.pt")
    denoiser, architecture = here(tmp_path / "model.pt")
    assert architecture == UNet(blocks, 4)
    check(denoiser, lambda y: run_unet(w, y, blocks))


@pytest.mark.parametrize("first_relu", [False, True])
def test_bf_cnn(first_relu: bool, tmp_path: Path) -> None:
    w = bf_cnn(4, set(range(21)))
    torch.save(w, tmp_path / "model.pt")
    denoiser, architecture = published.read(tmp_path / "model.pt", first_relu=first_relu)
    assert architecture == BFCNN(21, 4, first_relu=first_relu)
    check(denoiser, lambda y: run_bf_cnn(w, y, first_relu))


@pytest.mark.parametrize(("field", "wide"), [(23, range(2, 20, 2)), (13, range(4, 20, 4)), (9, (8, 16)), (5, ())])
def test_bf_cnn_of_smaller_receptive_fields(field: int, wide: tuple[int, ...], tmp_path: Path) -> None:
    w = bf_cnn(4, set(wide))
    torch.save(w, tmp_path / "model.pt")
    denoiser, architecture = here(tmp_path / "model.pt")
    assert architecture.receptive_field() == field
    check(denoiser, lambda y: run_bf_cnn(w, y, False))


def test_dncnn_in_a_checkpoint_with_arguments_and_lists(tmp_path: Path) -> None:
    w = dncnn(4)
    arguments = argparse.Namespace(model="dncnn", bias=False, milestones=[1, 2])
    torch.save({"step": 3, "model": [w], "optimizer": [{"state": {}}], "args": arguments}, tmp_path / "best.pt")
    denoiser, architecture = published.read(tmp_path / "best.pt")
    assert architecture == BFCNN(20, 4, first_relu=True)
    check(denoiser, lambda y: run_dncnn(w, y))


def test_a_payload_does_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    file = tmp_path / "model.pt"
    torch.save({**bf_cnn(4, set()), "extra": Payload(mark)}, file)
    with pytest.raises(UserError, match="it was not executed") as refused:
        published.read(file)
    assert not mark.exists() and "\n" not in str(refused.value) and "mkdir" in str(refused.value)
    torch.load(file, weights_only=False)
    assert mark.exists(), "the payload is one that would have run"


def without(w: Weights, key: str) -> Weights:
    return {k: v for k, v in w.items() if k != key}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": torch.ones(3)}, "none of UNet"),
        ({"encoder.0.0.weight": torch.ones(4, 2, 3, 3)}, "gray images"),
        (without(unet(2, 4), "decoder.1.4.running_sd"), "missing"),
        ({**unet(2, 4), "decoder.0.3.bias": torch.ones(1)}, "decoder.0.3.bias"),
        ({**bf_cnn(4, {3, 4}), "conv_layers.1.weight": torch.ones(4, 4, 5, 5)}, "sides"),
        (without(bf_cnn(4, set()), "conv_layers.7.weight"), "is expected"),
        ({"model": [1, 2]}, "no state dict"),
        ([torch.ones(2)], "no state dict"),
    ],
)
def test_files_that_are_no_known_network(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(UserError, match=message):
        here(tmp_path / "model.pt")


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file"):
        published.read(tmp_path / "none.pt")
    for content in (b"", b"hello", b"\x80\x04N."):
        (tmp_path / "model.pt").write_bytes(content)
        with pytest.raises(UserError):
            published.read(tmp_path / "model.pt")
    torch.save(unet(1, 4), tmp_path / "unet.pt")
    with pytest.raises(UserError, match="BF_CNN only"):
        published.read(tmp_path / "unet.pt", first_relu=True)
