"""The notice that AWS gives a spot instance two minutes before it takes it back: time for a last checkpoint.

    PUT /latest/api/token, GET /latest/meta-data/spot/instance-action → 404, or 200 and {"action": …, "time": …}

The instance's metadata service is asked every few seconds, on machines of EC2 only, or wherever
`AWS_EC2_METADATA_SERVICE_ENDPOINT` names one.
"""

import contextlib
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from gahb.threads import beside

log = logging.getLogger(__name__)

ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
POLL_SECONDS = 5.0
"""Seconds between two requests."""


@contextlib.contextmanager
def watched(save: threading.Event) -> Iterator[None]:
    """Set `save` when a notice arrives in this block."""
    service = _service()
    if not service:
        yield
        return

    def poll() -> Iterator[float]:
        while True:
            yield POLL_SECONDS
            with contextlib.suppress(OSError):
                if found := notice(service):
                    log.warning("the machine will be taken back (%s at %s)", found["action"], found["time"])
                    save.set()
                    return

    with beside(poll()):
        yield


def notice(service: str) -> dict[str, str] | None:
    """The notice, with `action` and `time`, or None if there is none. Raises OSError."""
    headers = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    with urlopen(Request(f"{service}/latest/api/token", method="PUT", headers=headers), timeout=2) as answer:
        token = answer.read().decode()
    place = Request(f"{service}/latest/meta-data/spot/instance-action", headers={"X-aws-ec2-metadata-token": token})
    try:
        with urlopen(place, timeout=2) as answer:
            found: dict[str, str] = json.load(answer)
            return found
    except HTTPError as error:
        if error.code == 404:
            return None
        raise


def _service() -> str | None:
    vendor = Path("/sys/class/dmi/id/sys_vendor")
    here = vendor.exists() and vendor.read_text().strip() == "Amazon EC2"
    return os.environ.get(ENDPOINT) or ("http://169.254.169.254" if here else None)
