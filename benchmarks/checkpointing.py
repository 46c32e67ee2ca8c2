"""What checkpoints cost: the share of time that goes into writing them, for the nets of Table 1.

Wall-clock time, because the disk takes part. The state is three times the weights: Adam keeps two moments of each. A
training writes one a minute, or fewer where the disk is slow.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.harness import Row, alternate, main
from gahb.storage.local import Folder
from gahb.training import cost, loop, step
from gahb.training.checkpoints import Checkpoints
from gahb.trial import Trial

INTERVAL = 60.0
MOST = 0.035


def row(resolution: int) -> Row:
    trial = Trial.of({"dataset": "c_alpha", "resolution": resolution, "n_train": 1})
    net, optimizer = step.start(trial, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    tensors = step.state(net, optimizer)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        checkpoints = Checkpoints(Folder(Path(folder)))
        seconds = alternate({"save": lambda: checkpoints.save(1, tensors, {})})["save"].wall
    pause = loop.checkpoint_pause(INTERVAL, seconds)
    share = seconds / (pause + seconds)
    size = sum(tensor.nbytes for tensor in tensors.values())
    return Row(
        work=f"checkpointing, UNet {resolution}×{resolution}, every {pause:.0f} s",
        baseline="no checkpoints",
        ratio=1 + seconds / pause,
        target=f"≤ {1 + MOST:.3f}×",
        met=share <= MOST,
        detail=f"{share:.2%} of the time; {seconds:.2f} s for {size / 1e6:.0f} MB, {size / seconds / 1e6:.0f} MB/s, "
        f"{cost.parameters(trial.architecture, resolution):,} parameters",
    )


def rows() -> Sequence[Row]:
    return [row(resolution) for resolution in (20, 40, 80, 160)]


if __name__ == "__main__":
    main(rows, __doc__ or "")
