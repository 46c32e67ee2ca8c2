"""The same bits in three processes with compile caches of their own: trained whole in two of them, and in the third, in
another thread, on from a checkpoint of the first.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.gpu import training
from benchmarks.gpu.checks import ARCHITECTURES, ON_GPU, Checks, Found, equal, trial
from gahb.storage.local import Folder
from gahb.training import loop
from gahb.training.checkpoints import Checkpoints
from gahb.trial import PRECISIONS, Trial

STEPS, CUT = 20, 13
PATIENCE = 180
"""Seconds that the third process waits for a checkpoint of the first."""


def cases() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in ARCHITECTURES:
        for precision in reversed(PRECISIONS) if ON_GPU else ("bfloat16",):
            found[f"{name}, {precision}"] = {"architecture": name, "precision": precision}
            if ON_GPU and (precision != "float32" or name == "unet"):
                found[f"{name}, {precision}, compiled"] = {**found[f"{name}, {precision}"], "compile": True}
    if ON_GPU:
        large = {"resolution": 80, "batch_size": 64, "precision": "bfloat16", "compile": True}
        found["unet 80×80, bfloat16, compiled"] = large
        found["unet 80×80, Muon and averaged weights"] = {**large, "optimizer": "muon", "ema": 0.05}
    return found


def checks() -> Checks:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        children = [stack.enter_context(started(way, folder)) for way in WAYS]
        for name in cases():
            yield f"{name}: twice whole, and resumed", partial(compare, name, children)


def started(way: str, folder: Path) -> "subprocess.Popen[str]":
    """A process that prints a line for each case."""
    caches = {"TORCHINDUCTOR_CACHE_DIR": folder / f"{way}-inductor", "TRITON_CACHE_DIR": folder / f"{way}-triton"}
    env = {**os.environ, **{key: str(path) for key, path in caches.items()}}
    command = [sys.executable, "-m", "benchmarks.gpu.bits", way, str(folder)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def compare(name: str, children: "list[subprocess.Popen[str]]") -> Found:
    digests = []
    for child in children:
        assert child.stdout
        found = json.loads(child.stdout.readline() or '{"error": "the process has ended"}')
        if "error" in found:
            raise RuntimeError(found["error"])
        digests.append(found["digest"])
    return equal(digests)


class Cut(Exception):
    pass


class Interrupting(Checkpoints):
    """Checkpoints of a training that ends when it has written that of step CUT."""

    def save(self, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> bool:
        written = super().save(step, tensors, facts)
        if step == CUT:
            raise Cut
        return written


def whole(trial: Trial, folder: Path) -> loop.Trained:
    return training.train(trial)


def cut(trial: Trial, folder: Path) -> loop.Trained:
    """Leave a checkpoint of step CUT in the folder, and train another time, whole."""
    with suppress(Cut):
        training.train(trial, Interrupting(Folder(folder)), loop.Options(checkpoint_seconds=0))
    (folder / "cut").touch()
    return training.train(trial)


def resume(trial: Trial, folder: Path) -> loop.Trained:
    """Go on from the checkpoint in the folder, once it is there."""
    late = time.monotonic() + PATIENCE
    while not (folder / "cut").exists() and time.monotonic() < late:
        time.sleep(0.05)
    return training.train(trial, Checkpoints(Folder(folder)))


WAYS: dict[str, Callable[[Trial, Path], loop.Trained]] = {"cut": cut, "whole": whole, "resume": resume}


def child(way: str, folder: Path) -> None:
    for number, flat in enumerate(cases().values()):
        chosen = trial(**flat)
        chosen = replace(chosen, images=STEPS * chosen.batch_size)
        try:
            with ThreadPoolExecutor(1) as thread:  # a new one, as Tune starts one for each trial
                trained = thread.submit(WAYS[way], chosen, folder / str(number)).result()
            psnr = trained.history[-1].metrics()["test_psnr"]
            line = {"digest": f"{training.digest(trained.denoiser)} at {psnr:.6f} dB"}
        except Exception as error:
            line = {"error": f"{way}: {type(error).__name__}: {error}"}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    child(sys.argv[1], Path(sys.argv[2]))
