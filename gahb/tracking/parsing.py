"""What a run must be like to be taken for one of ours. Whoever has an account, or the file, can write others: what is
read from a run afterwards has been checked here, by pattern and range."""

import json
import math
import re
from typing import Any

from gahb.tracking.run import ASKED, LINK, PSNRS, Kind, Run, Tag

LONGEST = 10_000
"""Letters in the value of a tag; MLflow takes 8000."""

MOST = 10**12
"""Images, or pixels a side, that anything has."""

PATTERNS = {
    Tag.KIND: r"[\w.-]{1,100}",
    Tag.SIGNATURE: "[0-9a-f]{12}",
    Tag.COURSE: "[0-9a-f]{12}",
    Tag.IMAGES_REUSED: "[0-9]{1,13}",
    Tag.DATA_HASH: "[0-9a-f]{16}",
    Tag.SUBSET: "[AB]",
    Tag.LAUNCH: "([0-9a-f]{12})?",
    Tag.PROGRESS: r"([0-9]{1,13}:[0-9]{1,12}\.[0-9]{3})?",
    Tag.STARTS: "([0-9]{1,18}:[0-9]{1,18})?",
}

NEEDED: dict[str, tuple[str, ...]] = {
    Kind.TRIAL: (Tag.SIGNATURE, Tag.TRIAL, Tag.DATA_HASH, Tag.SUBSET),
    Kind.IMPORT: (Tag.SIGNATURE,),
    Kind.CALIBRATION: (Tag.DEVICE,),
}
"""The tags that a run of a kind has from its beginning."""

RUN_ID = "[0-9a-f]{32}"

BEGINNINGS = {LINK: RUN_ID, ASKED: f"[0-9]+/{RUN_ID}"}
"""What the value of a tag is like whose key begins so."""

SECONDS, SHARE = (1e-12, 1e15), (1e-6, 1e6)
"""The least and the most seconds that anything takes, and cores or GPUs that a trial is granted."""


def check(run: Run) -> None:
    """Raise ValueError, which says what is wrong, unless a run is one that gahb makes."""
    _match("its id", RUN_ID, run.run_id)
    _match("the id of its experiment", "[0-9]+", run.experiment_id)
    if not run.name or not run.state:
        raise ValueError("it has no name, or no state")
    for tag, value in run.tags.items():
        if len(value) > LONGEST:
            raise ValueError(f"{tag[:100]} is too long")
        if pattern := _pattern(tag):
            _match(tag, pattern, value)
    for tag in NEEDED.get(run.kind, ()):
        if tag not in run.tags:
            raise ValueError(f"it has no {tag}")
    if run.kind in (Kind.TRIAL, Kind.IMPORT) and not run.sweeps:
        raise ValueError("it belongs to no sweep")
    if run.kind == Kind.TRIAL:
        _check_trial(run)
    elif run.kind == Kind.CALIBRATION and run.state == "finished":
        _check_rates(run.tags.get(Tag.RATES, ""))


def starts(tags: dict[str, str]) -> tuple[int, int]:
    """The step of the checkpoint that workers last started from, and how many did; -1 and 0 if none or not known."""
    text = tags.get(Tag.STARTS, "")
    step, colon, count = text.partition(":")
    return (int(step), int(count)) if colon and re.fullmatch(PATTERNS[Tag.STARTS], text) else (-1, 0)


def _pattern(tag: str) -> str | None:
    """What the value of a tag is like, if that is prescribed."""
    begun = (pattern for beginning, pattern in BEGINNINGS.items() if tag.startswith(beginning))
    return next(begun, PATTERNS.get(tag))  # type: ignore[call-overload]


def _check_trial(run: Run) -> None:
    flat = _flat(Tag.TRIAL, _json(Tag.TRIAL, run.tags[Tag.TRIAL]))
    for key in ("resolution", "n_train", "images"):
        if type(flat.get(key)) is not int or not 1 <= flat[key] <= MOST:
            raise ValueError(f"the {key} of {Tag.TRIAL} is no whole number, or out of range")
    if not isinstance(flat.get("dataset"), str) or flat.get("subset") != run.tags[Tag.SUBSET]:
        raise ValueError(f"{Tag.TRIAL} has no dataset, or another subset than {Tag.SUBSET} says")
    plugins = _json(Tag.PLUGINS, run.tags.get(Tag.PLUGINS, "[]"))
    if not isinstance(plugins, list) or not all(isinstance(v, str) for row in plugins for v in _flat("", row).values()):
        raise ValueError(f"{Tag.PLUGINS} is no list of plugins")
    for tag, limits in ((Tag.SHARE, SHARE), (Tag.PLANNED_SECONDS, SECONDS)):
        if tag in run.tags:
            _number(tag, run.tags[tag], limits)
    _number("images_seen", run.metrics.get("images_seen", 0), (0, MOST * 10))
    _number("images_per_second", run.metrics.get("images_per_second", 1), (1e-9, 1e12))
    if run.state == "finished" and not all(math.isfinite(run.metrics.get(key, math.nan)) for key in PSNRS):
        raise ValueError(f"it has finished without {', '.join(PSNRS)}")


def _check_rates(text: str) -> None:
    points = _json(Tag.RATES, text)
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        raise ValueError(f"{Tag.RATES} is no list of rates")
    for point in points:
        _flat(Tag.RATES, point.get("trial"))
        _number(Tag.RATES, point.get("seconds"), SECONDS)


def _match(what: str, pattern: str, text: str) -> None:
    if not isinstance(text, str) or not re.fullmatch(pattern, text):
        raise ValueError(f"{what} is not of the form {pattern}")


def _json(what: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{what} is no JSON") from None


def _flat(what: str, value: Any) -> dict[str, Any]:
    plain = isinstance(value, dict) and all(
        isinstance(v, str | bool | int) or (isinstance(v, float) and math.isfinite(v)) for v in value.values()
    )
    if not plain:
        raise ValueError(f"{what} is no flat trial")
    return dict(value)


def _number(what: str, value: Any, limits: tuple[float, float]) -> None:
    try:
        fits = not isinstance(value, bool) and limits[0] <= float(value) <= limits[1]
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise ValueError(f"{what} is no number from {limits[0]:g} to {limits[1]:g}")
