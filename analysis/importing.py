"""A published checkpoint becomes a finished run, so that analyses take it like a model of one's own.

Its run is of kind `import` in the experiment `imported`; params are architecture, resolution and file; its card has no
trial, no data set and no subset, because nothing is known of the images it was trained on. So it samples and denoises,
and analyses that need training images refuse it. The signature is a hash of the file and of how it is read: to import
the same again gives the same run.
"""

import hashlib
import json
import tempfile
from pathlib import Path

import torch

import gahb
from gahb.errors import UserError
from gahb.models import published
from gahb.models.architectures import Architecture, UNet
from gahb.storage.local import opened
from gahb.tracking import lookup
from gahb.tracking.record_writer import RecordWriter
from gahb.tracking.run import Kind, Run, Tag, member_of
from gahb.training import cost, weights

EXPERIMENT = "imported"


def import_checkpoint(record: RecordWriter, file: Path, *, name: str, resolution: int | None, first_relu: bool) -> Run:
    """The run of a published checkpoint, made if there is none.

    Args:
        name: the run's.
        resolution: pixels a side at which analyses sample from it; `usual_resolution` if left out.
        first_relu: see `published.read`.

    Raises:
        UserError: see `published.read`; a resolution that the network cannot take; a name that another run has.
    """
    denoiser, architecture = published.read(file, first_relu=first_relu)
    side = resolution or usual_resolution(architecture)
    weights.check_imported(architecture, side)
    with opened(file, links=True) as stream:
        content = hashlib.file_digest(stream, "sha256").hexdigest()
    facts = {"architecture": architecture.card(), "resolution": side}
    signature = hashlib.sha256(json.dumps([content, facts], sort_keys=True).encode()).hexdigest()[:12]
    for run in record.runs(Kind.TRIAL, Kind.IMPORT):
        if run.signature == signature and run.state == "finished":
            return run
        if run.name == name:
            raise UserError(f"there is a run {name!r} ({run.run_id[:8]}) already; choose another name with --as")
    run_id = record.create(
        EXPERIMENT,
        name,
        params={
            **architecture.flat(),
            "resolution": side,
            "parameters": cost.parameters(architecture, side),
            "file": file.name,
        },
        tags={Tag.KIND: Kind.IMPORT, Tag.SIGNATURE: signature, **member_of(EXPERIMENT)},
    )
    card = {
        "signature": signature,
        **facts,
        "file": file.name,
        "file_sha256": content,
        "gahb_version": gahb.__version__,
        "torch_version": torch.__version__,
    }
    with tempfile.TemporaryDirectory() as folder:
        weights.save(Path(folder), denoiser, card)
        record.add_artifacts(run_id, Path(folder))
    record.finish(run_id)
    return lookup.find(record, run_id)


def usual_resolution(architecture: Architecture) -> int:
    """Table 1's for a UNet of so many blocks, 40 for BF-CNN."""
    return 10 * 2**architecture.blocks if isinstance(architecture, UNet) else 40
