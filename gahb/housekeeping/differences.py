"""What two runs differ in: settings, data, results, and what they were made with."""

import hashlib
from collections.abc import Mapping
from typing import Any

from gahb.data.dataset import read_manifest
from gahb.errors import UserError
from gahb.planning.plan import states_of
from gahb.storage.base import Storage
from gahb.storage.local import opened
from gahb.tracking.record import Record
from gahb.tracking.run import Run, Tag
from gahb.training.weights import WEIGHTS, read_card

PARTS = ("settings", "data", "results", "made with")

EFFORT = ("images_per_second", "peak_memory_gb")
"""Metrics of a training that are no result of it."""

HASHES = {"hash": Tag.DATA_HASH, "subset_hash": Tag.SUBSET_HASH}
MADE_WITH = {"device": Tag.DEVICE, "share": Tag.SHARE, "plugins": Tag.PLUGINS}


def differences(record: Record, storage: Storage, one: Run, other: Run) -> list[dict[str, Any]]:
    """A row for each thing in which two trials or imported models differ: `part` ("settings", "data", "results" or
    "made with"), `key`, and the two values as `first` and `second`, None where a run has no such thing.

    Raises:
        UserError: the artifacts of a finished run cannot be read.
    """
    rows = []
    for part, first, second in zip(PARTS, *(_facts(record, storage, run) for run in (one, other)), strict=True):
        for key in dict.fromkeys([*first, *second]):
            values = first.get(key), second.get(key)
            if values[0] != values[1]:
                rows.append({"part": part, "key": key, "first": values[0], "second": values[1]})
    return rows


def _facts(record: Record, storage: Storage, run: Run) -> tuple[Mapping[str, Any], ...]:
    """What there is to know of a run, in the order of PARTS."""
    card, digest = dict[str, Any](), None
    if run.state == "finished":
        folder = record.artifacts(run.run_id)
        card = read_card(folder)
        with opened(folder / WEIGHTS) as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    content = {key: card[key] for key in ("content_sha256",) if key in card}
    state = states_of([run], storage)[run.run_id]
    metrics = {key: value for key, value in run.metrics.items() if key not in EFFORT}
    effort = {key: run.metrics[key] for key in EFFORT if key in run.metrics}
    return (
        run.params if run.imported else run.flat,
        {**_tags(run, HASHES), **_manifest(storage, run), **content},
        {"state": state, **metrics, "weights_sha256": digest, "images_reused": run.images_reused},
        {**{key: card.get(key) for key in ("gahb_version", "torch_version")}, **_tags(run, MADE_WITH), **effort},
    )


def _tags(run: Run, names: Mapping[str, Tag]) -> dict[str, str | None]:
    return {key: run.tags.get(tag) for key, tag in names.items()}


def _manifest(storage: Storage, run: Run) -> dict[str, Any]:
    """The manifest of a run's data set on one level, where the storage has it."""
    try:
        manifest = read_manifest(storage, run.tags.get(Tag.DATA_HASH, ""))
    except UserError:
        return {}
    recipe = {f"recipe.{key}": value for key, value in manifest.pop("recipe", {}).items()}
    return {**manifest, **recipe}
