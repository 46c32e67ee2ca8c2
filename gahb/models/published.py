"""Checkpoints that the authors of this and of an earlier paper publish, read without executing anything in them.

A checkpoint is a pickle, and a pickle can run code. `torch.load` is told to accept tensors and plain containers only,
and the one class that such files hold besides, argparse.Namespace. The network is recognised by names and shapes:

    UNet, BF_CNN, BF_CNN_RF    Kadkhodaie et al. (2024): a state dict
    DnCNN without bias         Mohan, Kadkhodaie et al. (2020): a state dict in a list under "model". A BF-CNN with
                               a ReLU after the first layer; it divides by sqrt(Var) + ε, here the running sd

each with or without the prefix "module." that data parallelism leaves.
"""

import argparse
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gahb.errors import UserError
from gahb.models.architectures import BFCNN, Architecture, UNet
from gahb.models.layers import EPSILON, Denoiser
from gahb.models.loading import fit


def read(path: Path, *, first_relu: bool = False) -> tuple[Denoiser, Architecture]:
    """The denoiser in evaluation mode, on the CPU, and its architecture.

    Args:
        path: the file.
        first_relu: whether a BF_CNN has a ReLU after its first layer, which its file does not say.

    Raises:
        UserError: no such file, one that holds more than tensors, or a network that is none of those known.
    """
    architecture, tensors = _translate(_state_dict(_load(path), path), path)
    if first_relu:
        if not isinstance(architecture, BFCNN) or architecture.first_relu:
            raise UserError(f"{path} leaves no choice about its first layer; first ReLU is for BF_CNN only")
        architecture = BFCNN(architecture.layers, architecture.width, architecture.spacing, first_relu=True)
        tensors["layers.0.0.weight"] = tensors.pop("layers.0.weight")
    return fit(architecture, tensors), architecture


def _load(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"no file {path}")
    if _packed(path):
        raise UserError(f"{path} is compressed, as no checkpoint is; it was not unpacked")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols; what cannot be read is an error below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, as the file is damaged
        reason = re.search(r"GLOBAL (\S+)|type (\S+) from", str(error))
        what = f" (it asks for {(reason[1] or reason[2])})" if reason else ""
        raise UserError(f"{path} holds more than tensors, or is no checkpoint{what}; it was not executed") from None


def _packed(path: Path) -> bool:
    """Whether it is a zip whose members say that they are longer than the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist()) > path.stat().st_size
    except Exception:  # torch says what else it is
        return False


def _state_dict(payload: Any, path: Path) -> dict[str, Tensor]:
    """Name → tensor, without prefixes."""
    for key in ("model", "state_dict"):
        if isinstance(payload, Mapping) and key in payload:
            payload = payload[key]
    if isinstance(payload, list) and len(payload) == 1:
        payload = payload[0]
    if not isinstance(payload, Mapping) or not all(_plain(value) for value in payload.values()):
        raise UserError(f"{path} holds no state dict, that is names with tensors")
    if sum(tensor.numel() * tensor.element_size() for tensor in payload.values()) > path.stat().st_size:
        raise UserError(f"{path} names more numbers than it holds")
    return {str(key).removeprefix("module."): tensor for key, tensor in payload.items()}


def _plain(value: Any) -> bool:
    """Whether it is a tensor of real numbers that are all there."""
    return isinstance(value, Tensor) and value.layout == torch.strided and value.is_cpu and not value.is_complex()


def _translate(tensors: dict[str, Tensor], path: Path) -> tuple[Architecture, dict[str, Tensor]]:
    """The architecture, and the tensors under the names that its network has here."""
    for first, translate in (
        ("encoder.0.0.weight", _unet),
        ("conv_layers.0.weight", _bf_cnn),
        ("first_layer.weight", _dncnn),
    ):
        if first in tensors:
            shape = tuple(tensors[first].shape)
            if len(shape) != 4 or shape[1] != 1:
                raise UserError(f"{path}: its first layer is {shape}; only networks for gray images can be imported")
            return translate(tensors, path)
    raise UserError(
        f"{path} is none of UNet, BF_CNN, BF_CNN_RF and DnCNN; its first tensor is {next(iter(tensors), '–')}"
    )


def _unet(tensors: dict[str, Tensor], path: Path) -> tuple[Architecture, dict[str, Tensor]]:
    names = {"mid_block": "middle", "upsample": "up"}
    translated = {}
    for key, tensor in tensors.items():
        part, rest = key.split(".", 1)
        translated[f"{names.get(part, part)}.{rest}".replace(".gammas", ".gain")] = tensor
    blocks = len({key.split(".")[1] for key in tensors if key.startswith("encoder.")})
    return UNet(blocks, len(tensors["encoder.0.0.weight"])), translated


def _bf_cnn(tensors: dict[str, Tensor], path: Path) -> tuple[Architecture, dict[str, Tensor]]:
    kernels = [key for key in tensors if re.fullmatch(r"conv_layers\.\d+\.weight", key)]
    layers = len(kernels)
    inner = [tensors[key].shape[-1] for key in sorted(kernels, key=lambda key: int(key.split(".")[1]))[1:-1]]
    architecture = BFCNN(layers, len(tensors["conv_layers.0.weight"]), _spacing(inner, path))
    translated = {}
    for key, tensor in tensors.items():
        kind, index, *rest = key.split(".")
        if kind == "conv_layers":
            translated[_convolution(int(index), layers)] = tensor
        elif kind == "BN_layers":
            translated[f"layers.{int(index) + 1}.1.{'gain' if rest == ['gammas'] else '.'.join(rest)}"] = tensor
        else:
            translated[key] = tensor
    return architecture, translated


def _dncnn(tensors: dict[str, Tensor], path: Path) -> tuple[Architecture, dict[str, Tensor]]:
    unused = ("running_mean", "num_batches_tracked")
    layers = 2 + sum(key.startswith("hidden_layer_list.") for key in tensors)
    translated = {}
    for key, tensor in tensors.items():
        kind, *rest = key.split(".")
        if kind == "first_layer":
            translated[f"layers.0.0.{rest[0]}"] = tensor
        elif kind == "last_layer":
            translated[f"layers.{layers - 1}.{rest[0]}"] = tensor
        elif kind == "hidden_layer_list":
            translated[f"layers.{int(rest[0]) + 1}.0.{rest[1]}"] = tensor
        elif rest[-1] == "weight":
            translated[f"layers.{int(rest[0]) + 1}.1.gain"] = tensor.view(1, -1, 1, 1)
        elif rest[-1] == "running_var":
            translated[f"layers.{int(rest[0]) + 1}.1.running_sd"] = tensor.sqrt().view(1, -1, 1, 1) + EPSILON
        elif rest[-1] not in (*unused, "bias"):  # the normalisation has a bias that it does not use
            translated[key] = tensor
    return BFCNN(layers, len(tensors["first_layer.weight"]), first_relu=True), translated


def _convolution(index: int, layers: int) -> str:
    return f"layers.{index}.weight" if index in (0, layers - 1) else f"layers.{index}.0.weight"


def _spacing(sides: list[int], path: Path) -> int:
    """The spacing of the 3×3 convolutions among the inner ones, whose sides are given."""
    for spacing in range(1, len(sides) + 2):
        if sides == [1 if layer % spacing else 3 for layer in range(1, len(sides) + 1)]:
            return spacing
    raise UserError(f"{path}: no BF_CNN has inner convolutions of sides {sides}")
