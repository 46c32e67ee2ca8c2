"""Whether all that a sweep needs is in order: versions, GPU, compiler, Ray, record, storage, clock and prepared images.

Each check gives a `Finding`; one that cannot be made gives the reason as a failure, and the others go on.
"""

import hashlib
import importlib.metadata
import json
import math
import platform
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gahb import hardware
from gahb.data.dataset import Prepared, read_manifest
from gahb.errors import UserError
from gahb.execution import connection, ray_jobs
from gahb.own_folder import own_folder
from gahb.storage.base import Storage
from gahb.storage.leases import LEASE_TTL
from gahb.storage.local import Folder
from gahb.tracking.record import Record
from gahb.training.compilation import check_compiler
from gahb.typed import command_line

NVIDIA = Path("/proc/driver/nvidia/version")
"""What the driver of NVIDIA's GPUs says of itself."""

FREE_BYTES = 2e9
"""Less room than this in a storage is worth a warning."""

SKEW_SECONDS = 5.0
"""The same of a clock that is apart from the storage's; a bucket tells whole seconds."""

MANIFEST = re.compile("data/([0-9a-f]{16})/manifest.json")

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Finding:
    """What a check found: `state` is OK, WARN (something will not work, or soon) or FAIL (no sweep will), and `cure`
    what to do, unless that is said already."""

    what: str
    state: str
    found: str
    cure: str = ""


def examine(record: Record, storage: Storage, address: str | None, say: Callable[[str], None]) -> Iterator[Finding]:
    """The findings, each as soon as it is made.

    Args:
        record: to be reached.
        storage: to be written to; all images in it are read.
        address: of a Ray cluster; a Ray of this machine's own is started if left out.
        say: takes a line where a check takes its time.
    """
    yield Finding("python", OK, f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for what, check in (
        ("packages", packages),
        ("gpu", gpu),
        ("compiler", compiler),
        ("temporary", temporary),
        ("cluster", lambda: ray(address)),
        ("record", lambda: reachable(record)),
        ("storage", lambda: writable(storage)),
        ("clock", lambda: clock(storage)),
        ("images", lambda: images(storage, say)),
    ):
        try:
            yield from check()
        except (UserError, OSError) as error:
            yield Finding(what, FAIL, str(error))


def packages() -> Iterator[Finding]:
    """The versions of what gahb needs, against the ranges that it states."""
    from packaging.requirements import Requirement

    try:
        stated = importlib.metadata.requires("gahb") or []
    except importlib.metadata.PackageNotFoundError:
        return (yield Finding("packages", WARN, "gahb is not installed, so its ranges are not known", "pip install ."))
    for requirement in map(Requirement, stated):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, range_ = requirement.name, requirement.specifier
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, FAIL, "not installed", f"pip install '{requirement}'")
            continue
        fits = range_.contains(found, prereleases=True)
        yield (
            Finding(name, OK, found)
            if fits
            else Finding(name, FAIL, f"{found}, and gahb needs {range_}", f"pip install '{requirement}'")
        )


def gpu() -> Iterator[Finding]:
    """What torch makes of this machine's GPUs."""
    import torch

    built = f"torch {torch.__version__}, built for {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPUs'}"
    if found := hardware.gpus():
        name, number, memory = found
        bfloat16 = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
        yield Finding("gpu", OK, f"{number} × {name}, {memory / 1e9:.0f} GB, {bfloat16}; driver {_driver()}; {built}")
    elif NVIDIA.exists():
        cure = "install a build of torch for this driver, or train on cores with --gpus-per-trial 0"
        yield Finding("gpu", FAIL, f"driver {_driver()}, and {built} cannot use it", cure)
    else:
        memory = hardware.memory(torch.device("cpu"))
        yield Finding(
            "gpu", OK, f"no GPU: trials train on {hardware.cores()} × {hardware.core()}, {memory / 1e9:.0f} GB"
        )


def compiler() -> Iterator[Finding]:
    """Whether trials with compile=true can be trained here."""
    try:
        check_compiler()
    except UserError as error:
        yield Finding("compiler", WARN, "none for torch.compile", str(error))
    else:
        yield Finding("compiler", OK, "there is one for torch.compile")


def temporary() -> Iterator[Finding]:
    """The folder on this machine's disk for what only this user may read."""
    yield Finding("temporary", OK, str(own_folder()))


def ray(address: str | None) -> Iterator[Finding]:
    """Whether work can be had from Ray."""
    if address and ray_jobs.is_server(address):
        connection.check_reachable(address)
        return (yield Finding("cluster", OK, f"something listens at {address}"))
    with connection.connected(address):
        import ray

        resources = ray.cluster_resources()
    has = f"{resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"
    yield Finding("cluster", OK, f"{has} {f'at {address}' if address else 'of this machine, with a Ray of its own'}")


def reachable(record: Record) -> Iterator[Finding]:
    """Whether the record can be reached, and is one of the MLflow that is installed."""
    if not record.exists:
        return (yield Finding("record", OK, f"{record.uri} is not there yet, and the first launch makes it"))
    count = len(record.client.search_experiments())
    yield Finding("record", OK, f"{record.uri} answers, with {count} experiments")


def writable(storage: Storage) -> Iterator[Finding]:
    """Whether files appear, of two that are created one does, and there is room."""
    with _probe(storage) as name:
        first, second = storage.create(name, b"first"), storage.create(name, b"second")
        content = storage.read(name)
        free = shutil.disk_usage(storage.path).free if isinstance(storage, Folder) else math.inf
    if not first or second or content != b"first":
        cure = "use a file system, or an S3 server, that can create a file unless there is one"
        yield Finding("storage", FAIL, f"{storage.uri} lets two launches acquire one lease", cure)
    elif free < FREE_BYTES:
        yield Finding(
            "storage",
            WARN,
            f"{storage.uri}, {free / 1e9:.2f} GB free",
            f"make room; {command_line('gahb-sweep', 'gc')} may help",
        )
    else:
        room = f", {free / 1e9:,.0f} GB free" if free < math.inf else ""
        yield Finding("storage", OK, f"{storage.uri}{room}")


def clock(storage: Storage) -> Iterator[Finding]:
    """How far this machine's clock is from the storage's, by which heartbeats are judged."""
    with _probe(storage) as name:
        before = time.time()
        storage.write(name, b"")
        written, after = storage.modified(name) or before, time.time()
    skew = max(before - written, written - after, 0.0)
    cure = "let this machine keep the time with NTP"
    if skew > LEASE_TTL / 2:
        lost = f"a launch that lives counts as dead after {LEASE_TTL:g} s without a heartbeat"
        yield Finding("clock", FAIL, f"{skew:.0f} s from the storage's; {lost}", cure)
    elif skew > SKEW_SECONDS:
        yield Finding("clock", WARN, f"{skew:.0f} s from the storage's", cure)
    else:
        yield Finding("clock", OK, "that of the storage, to a few seconds")


def images(storage: Storage, say: Callable[[str], None]) -> Iterator[Finding]:
    """Whether the prepared images are what their manifests say; those in a bucket are not fetched for that."""
    found = [match for file in storage.files("data") if (match := MANIFEST.fullmatch(file.name))]
    here, damaged = isinstance(storage, Folder), 0
    for number, match in enumerate(found):
        folder = match[0].rpartition("/")[0]
        if here:
            say(f"reading the images in {folder} ({number + 1} of {len(found)})")
        try:
            problem = _problem(storage, match[1], read=here)
        except UserError as error:
            problem = str(error)
        if problem:
            damaged += 1
            cure = f"remove {storage.uri}/{folder} and launch its sweep again"
            yield Finding("images", FAIL, f"{folder}: {problem}", cure)
    if not damaged:
        how = "their hashes are those of their manifests" if here else "their manifests are in order"
        yield Finding("images", OK, f"{len(found)} prepared; {how}" if found else "none are prepared yet")


def _problem(storage: Storage, data_hash: str, *, read: bool) -> str:
    """What is wrong with a prepared data set; "" if nothing is."""
    manifest = read_manifest(storage, data_hash)
    recipe = json.dumps(manifest.get("recipe"), sort_keys=True)
    if hashlib.sha256(recipe.encode()).hexdigest()[:16] != data_hash:
        return "its manifest is another data set's"
    if not read:
        return "" if storage.modified(f"data/{data_hash}/{manifest.get('file')}") else "its images are not there"
    content = hashlib.sha256(Prepared.open(storage, data_hash).images.data).hexdigest()
    return "" if content == manifest.get("content_sha256") else "its images are not those that were prepared"


@contextmanager
def _probe(storage: Storage) -> Iterator[str]:
    """The name of a file that does not exist before the block nor after it."""
    made = isinstance(storage, Folder) and not storage.path.exists()
    name = f"doctor/{uuid.uuid4().hex}"
    try:
        yield name
    finally:
        storage.clear("" if made else "doctor", [name])


def _driver() -> str:
    """The version of NVIDIA's driver."""
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", NVIDIA.read_text()) if NVIDIA.exists() else None
    return found[0] if found else "unknown"
