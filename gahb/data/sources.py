"""The sources of images by name, and how a `dataset=` is read: a registered name, or else a path."""

from gahb.data.c_alpha import CAlpha
from gahb.data.disks import Disks
from gahb.data.files import Files

Source = CAlpha | Disks | Files

SOURCES: dict[str, type[CAlpha] | type[Disks]] = {cls.name: cls for cls in (CAlpha, Disks)}


def source_class(dataset: str) -> type[CAlpha] | type[Disks] | type[Files]:
    """The class behind a registered name; `Files` for anything else, which is then a path."""
    return SOURCES.get(dataset, Files)
