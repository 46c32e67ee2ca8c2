"""The sources of images by name, and how a `dataset=` is read: a registered name, or else a path."""

from typing import Any

from gahb.config_fields import check_configuration, field_types
from gahb.data.c_alpha import CAlpha
from gahb.data.disks import Disks
from gahb.data.image_files import ImageFiles
from gahb.data.image_ray import ImageRay
from gahb.data.manifold import Manifold
from gahb.data.sinusoids import Sinusoids
from gahb.data.source import Source
from gahb.errors import UserError
from gahb.registry import KEYS, Group, new_group


def _check(source: Any) -> None:
    check_configuration(source, Source)
    if issubclass(source, Manifold) and not isinstance(getattr(source, "dimension", None), int):
        raise UserError("a manifold needs a dimension, an int")


DATASETS: Group[type[Source]] = new_group("datasets", "data set", _check)
for _source in (CAlpha, Disks, Sinusoids, ImageRay):
    DATASETS.add(_source.name, _source)
KEYS.claim("data set", ImageFiles.name, field_types(ImageFiles))


def source_class(dataset: str) -> type[Source]:
    """The class behind a registered name; `ImageFiles` for anything else, which is then a path."""
    return DATASETS.get(dataset, ImageFiles)
