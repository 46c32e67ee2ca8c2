"""Checkpoints that the authors of this and of an earlier paper publish, read without executing anything in them.

A checkpoint is a pickle, and a pickle can run code. `torch.load` is told to accept tensors and plain containers only,
and the one class that such files hold besides, argparse.Namespace. That keeps code out, but not what never ends, takes
all memory or meets a fault of the library; so the file is read in a child process with limits, `python -m
gahb.models.published FOLDER CPU_SECONDS < FILE`, which writes safetensors and JSON into the folder. Both are checked
like those of a stranger. The network is recognised by names and shapes:

    UNet, BF_CNN, BF_CNN_RF    Kadkhodaie et al. (2024): a state dict
    DnCNN without bias         Mohan, Kadkhodaie et al. (2020): a state dict in a list under "model". A BF-CNN with
                               a ReLU after the first layer; it divides by sqrt(Var) + ε, here the running sd

each with or without the prefix "module." that data parallelism leaves.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gahb import child
from gahb.errors import UserError
from gahb.models.architectures import ARCHITECTURES, BFCNN, Architecture, UNet
from gahb.models.layers import EPSILON, Denoiser
from gahb.models.loading import fit
from gahb.storage.local import OddFile, content_of, opened

CPU_SECONDS = 60
"""Processor time in which a checkpoint is read; one of 100 MB takes less than one."""

SECONDS = 300
"""Time for the same, start of the child included."""

MEMORY = 1 << 29
"""Bytes that reading may take besides four times those of the file."""

MOST_WORDS = 1 << 16
"""Bytes of the JSON that the child writes."""

TENSORS, ANSWER = "tensors.safetensors", "answer.json"

NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.int32)


def read(path: Path, *, first_relu: bool = False) -> tuple[Denoiser, Architecture]:
    """The denoiser in evaluation mode, on the CPU, and its architecture.

    Args:
        path: the file.
        first_relu: whether a BF_CNN has a ReLU after its first layer, which its file does not say.

    Raises:
        UserError: no such file, one that holds more than tensors, one that takes too much to read, or a network that is
            none of those known.
    """
    try:
        with opened(path, links=True) as file, tempfile.TemporaryDirectory() as folder:
            architecture, tensors = _from_child(file, path, Path(folder))
            if first_relu:
                if not isinstance(architecture, BFCNN) or architecture.first_relu:
                    raise UserError(f"{path} leaves no choice about its first layer; first ReLU is for BF_CNN only")
                architecture = BFCNN(architecture.layers, architecture.width, architecture.spacing, first_relu=True)
                tensors["layers.0.0.weight"] = tensors.pop("layers.0.weight")
            try:
                return fit(architecture, tensors), architecture
            except UserError as error:
                raise UserError(f"{path} {error}") from None
    except (FileNotFoundError, NotADirectoryError, OddFile):
        raise UserError(f"no file {path}") from None


def _from_child(file: BinaryIO, path: Path, folder: Path) -> tuple[Architecture, dict[str, Tensor]]:
    """What a child makes of a file: the architecture, and the tensors under the names that its network has here."""
    words = ("gahb.models.published", str(folder), str(CPU_SECONDS))
    reader = child.start(*words, stdin=file, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        status = reader.wait(SECONDS)
    except subprocess.TimeoutExpired:
        raise UserError(f"{path} was not read in {SECONDS} s; it was given up") from None
    finally:
        reader.kill()
        reader.wait()
    if status:
        reason = child.how_it_ended(status) or f"takes too much to read, or is damaged (the reader ended with {status})"
        raise UserError(f"{path} {reason}")
    try:
        answer = json.loads(content_of(folder / ANSWER, MOST_WORDS))
        if not (problem := answer.get("problem")):
            options = dict(answer["architecture"])
            return ARCHITECTURES[options.pop("architecture")](**options), load_file(folder / TENSORS)
    except Exception as error:  # of many kinds, as who wrote it may be a stranger by now
        raise UserError(f"{path} was not read ({type(error).__name__}: {error})") from None
    raise UserError(f"{path} {problem}")


def _serve(folder: Path, cpu_seconds: int) -> None:
    """The child: a file at the standard input becomes safetensors and JSON in a folder."""
    torch.set_num_threads(1)
    answer: dict[str, Any]
    with open(0, "rb", closefd=False) as file:
        size = os.fstat(0).st_size
        child.limit(4 * size + MEMORY, cpu_seconds, 2 * size + MOST_WORDS)
        try:
            architecture, tensors = translated(file, size)
            save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, folder / TENSORS)
            answer = {"architecture": architecture.card()}
        except UserError as error:
            answer = {"problem": str(error)[:1000]}
        except Exception as error:  # of many kinds, as names and shapes are a stranger's
            answer = {"problem": f"is no network that is known here ({type(error).__name__}: {str(error)[:200]})"}
    (folder / ANSWER).write_text(json.dumps(answer))


def translated(file: BinaryIO, size: int) -> tuple[Architecture, dict[str, Tensor]]:
    """What the child makes of a file of so many bytes, without limits: the architecture, and the tensors under the
    names that its network has here. Raises exceptions of any kind."""
    return _translate(_state_dict(_load(file, size), size))


def _load(file: BinaryIO, size: int) -> Any:
    if _packed(file, size):
        raise UserError("is compressed, as no checkpoint is; it was not unpacked")
    file.seek(0)
    head = file.read(9)
    file.seek(0)
    try:
        if head[8:] == b"{" and int.from_bytes(head[:8], "little") < size:
            return safetensors.torch.load(file.read())
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols; what cannot be read is an error below
            return torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise UserError("takes too much memory to read") from None
    except Exception as error:  # of many kinds, as the file is damaged
        reason = re.search(r"GLOBAL (\S+)|type (\S+) from", str(error))
        what = f" (it asks for {(reason[1] or reason[2])})" if reason else ""
        raise UserError(f"holds more than tensors, or is no checkpoint{what}; it was not executed") from None


def _packed(file: BinaryIO, size: int) -> bool:
    """Whether it is a zip whose members say that they are longer than the file."""
    try:
        with zipfile.ZipFile(file) as archive:
            return sum(member.file_size for member in archive.infolist()) > size
    except Exception:  # torch says what else it is
        return False


def _state_dict(payload: Any, size: int) -> dict[str, Tensor]:
    """Name → tensor, without prefixes."""
    for key in ("model", "state_dict"):
        if isinstance(payload, Mapping) and key in payload:
            payload = payload[key]
    if isinstance(payload, list) and len(payload) == 1:
        payload = payload[0]
    if not isinstance(payload, Mapping) or not all(isinstance(k, str) and _plain(v) for k, v in payload.items()):
        raise UserError("holds no state dict, that is names with tensors")
    if sum(tensor.numel() * tensor.element_size() for tensor in payload.values()) > size:
        raise UserError("names more numbers than it holds")
    return {key.removeprefix("module."): tensor for key, tensor in payload.items()}


def _plain(value: Any) -> bool:
    """Whether it is a tensor of real numbers that are all there."""
    return isinstance(value, Tensor) and value.layout == torch.strided and value.is_cpu and value.dtype in NUMBERS


def _translate(tensors: dict[str, Tensor]) -> tuple[Architecture, dict[str, Tensor]]:
    """The architecture, and the tensors under the names that its network has here."""
    for first, translate in (
        ("encoder.0.0.weight", _unet),
        ("conv_layers.0.weight", _bf_cnn),
        ("first_layer.weight", _dncnn),
    ):
        if first in tensors:
            shape = tuple(tensors[first].shape)
            if len(shape) != 4 or shape[1] not in (1, 3):
                raise UserError(f"is no network for gray images or such in colour: its first layer is {shape}")
            architecture, translated = translate(tensors)
            return replace(architecture, image_channels=shape[1]), translated
    raise UserError(f"is none of UNet, BF_CNN, BF_CNN_RF and DnCNN; its first tensor is {next(iter(tensors), '–')}")


def _unet(tensors: dict[str, Tensor]) -> tuple[Architecture, dict[str, Tensor]]:
    names = {"mid_block": "middle", "upsample": "up"}
    translated = {}
    for key, tensor in tensors.items():
        part, rest = key.split(".", 1)
        translated[f"{names.get(part, part)}.{rest}".replace(".gammas", ".gain")] = tensor
    blocks = len({key.split(".")[1] for key in tensors if key.startswith("encoder.")})
    return UNet(blocks, len(tensors["encoder.0.0.weight"])), translated


def _bf_cnn(tensors: dict[str, Tensor]) -> tuple[Architecture, dict[str, Tensor]]:
    kernels = [key for key in tensors if re.fullmatch(r"conv_layers\.\d+\.weight", key)]
    layers = len(kernels)
    inner = [tensors[key].shape[-1] for key in sorted(kernels, key=lambda key: int(key.split(".")[1]))[1:-1]]
    architecture = BFCNN(layers, len(tensors["conv_layers.0.weight"]), _spacing(inner))
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


def _dncnn(tensors: dict[str, Tensor]) -> tuple[Architecture, dict[str, Tensor]]:
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
            if not bool((tensor >= 0).all()):
                raise UserError(f"has variances that are none in {key}")
            translated[f"layers.{int(rest[0]) + 1}.1.running_sd"] = tensor.sqrt().view(1, -1, 1, 1) + EPSILON
        elif rest[-1] not in (*unused, "bias"):  # the normalisation has a bias that it does not use
            translated[key] = tensor
    return BFCNN(layers, len(tensors["first_layer.weight"]), first_relu=True), translated


def _convolution(index: int, layers: int) -> str:
    return f"layers.{index}.weight" if index in (0, layers - 1) else f"layers.{index}.0.weight"


def _spacing(sides: list[int]) -> int:
    """The spacing of the 3×3 convolutions among the inner ones, whose sides are given."""
    for spacing in range(1, len(sides) + 2):
        if sides == [1 if layer % spacing else 3 for layer in range(1, len(sides) + 1)]:
            return spacing
    raise UserError(f"is no BF_CNN, none of which has inner convolutions of sides {sides}")


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))
