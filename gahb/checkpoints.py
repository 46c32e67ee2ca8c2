"""Checkpoints of a trial in progress: tensors and JSON in safetensors files, which execute nothing when read.

A file appears by atomic rename. The last two checkpoints are kept; one that cannot be read falls back to the one
before. Beside them stand the weights at every evaluation, which are log-spaced in time and all kept.
"""

import json
import logging
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gahb.storage import write_atomically

log = logging.getLogger(__name__)

KEPT = 2


def weights_file(images_seen: int) -> str:
    """The name of the file with the weights after `images_seen` images."""
    return f"images-{images_seen:012d}.safetensors"


class Checkpoints:
    """The checkpoints in a folder, one file a step: `step-000000600.safetensors`; weights alone in `weights/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Keep the state after `step` steps; older files than the last two go."""
        tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        content = save(tensors, metadata={"facts": json.dumps({**facts, "step": step})})
        write_atomically(self.folder / f"step-{step:09d}.safetensors", content)
        for old in self._files()[:-KEPT]:
            old.unlink(missing_ok=True)

    def keep_weights(self, images_seen: int, weights: dict[str, Tensor]) -> None:
        """Keep weights alone, for analyses of the training's course."""
        content = save({name: tensor.detach().contiguous() for name, tensor in weights.items()})
        write_atomically(self.weights_folder / weights_file(images_seen), content)

    @property
    def weights_folder(self) -> Path:
        return self.folder / "weights"

    @property
    def step(self) -> int:
        """The step of the newest checkpoint; 0 if there is none."""
        return max((int(file.stem.removeprefix("step-")) for file in self._files()), default=0)

    def latest(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """(step, tensors on the CPU, facts) of the newest readable checkpoint, or None."""
        for file in reversed(self._files()):
            try:
                with safe_open(file, framework="pt") as stream:
                    facts = json.loads(stream.metadata()["facts"])
                    return facts["step"], {key: stream.get_tensor(key) for key in stream.keys()}, facts  # noqa: SIM118
            except (SafetensorError, OSError, ValueError) as error:
                log.warning("checkpoint %s cannot be read (%s); falling back to the one before", file, error)
        return None

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.safetensors"))
