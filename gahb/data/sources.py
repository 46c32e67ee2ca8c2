"""The sources of images by name, and how a `dataset=` is read: a registered name, or else a path."""

from gahb.data.c_alpha import CAlpha
from gahb.data.disks import Disks
from gahb.data.image_files import Files
from gahb.data.image_ray import ImageRay
from gahb.data.sinusoids import Sinusoids

Synthetic = CAlpha | Disks | Sinusoids | ImageRay
Source = Synthetic | Files

SOURCES: dict[str, type[Synthetic]] = {cls.name: cls for cls in (CAlpha, Disks, Sinusoids, ImageRay)}


def source_class(dataset: str) -> type[Source]:
    """The class behind a registered name; `Files` for anything else, which is then a path."""
    return SOURCES.get(dataset, Files)
