import hashlib
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from PIL import Image

from gahb.data.dataset import Dataset, Prepared, known_count, prepare
from gahb.data.disks import Disks
from gahb.data.image_files import ImageFiles
from gahb.data.pixel_shuffling import permutation, shuffle, unshuffle
from gahb.errors import UserError
from gahb.storage.local import Folder
from tests.broken import damaged_zip


def pictures(count: int, height: int = 24, width: int = 24, seed: int = 0) -> np.ndarray:
    """Images with no near-duplicate among them."""
    return np.random.default_rng(seed).integers(0, 256, (count, height, width), dtype=np.uint8)


def write_folder(folder: Path, images: np.ndarray, suffix: str = ".png") -> Path:
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:06d}{suffix}", quality=95)
    return folder


def write_zip(file: Path, folder: Path) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for picture in sorted(folder.iterdir()):
            archive.write(picture, f"{folder.name}/{picture.name}")
    return file


def load(path: Path, resolution: int, storage: Path, **options: Any) -> Prepared:
    return prepare(Dataset(ImageFiles(str(path), **options), resolution), Folder(storage), 1)


def as_set(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_folder_zip_and_array_give_the_same_images(tmp_path: Path) -> None:
    images = pictures(30)
    folder = write_folder(tmp_path / "set", images)
    np.save(tmp_path / "set.npy", images)
    archive = write_zip(tmp_path / "set.zip", folder)
    (folder / "notes.txt").write_text("not an image")
    sources = [load(path, 24, tmp_path / "storage") for path in (folder, archive, tmp_path / "set.npy")]
    for prepared in sources:
        assert as_set(prepared.images) == as_set(images)
        assert prepared.manifest["count"] == 30 and prepared.manifest["dropped_duplicates"] == 0
    assert len({prepared.manifest["hash"] for prepared in sources}) == 3


def test_the_manifest_says_how_the_images_came_about(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", pictures(5))
    prepared = load(folder, 12, tmp_path / "storage")
    manifest = json.loads(next((tmp_path / "storage/data").glob("*/manifest.json")).read_text())
    assert manifest == prepared.manifest
    recipe = manifest["recipe"]
    assert recipe["crop"] == "centre" and recipe["gray"] == "mean of channels" and recipe["resize"] == "bicubic"
    assert recipe["duplicates"] == 0.95 and recipe["resolution"] == 12 and "order" in recipe
    assert manifest["source"] == str(folder)
    assert len(recipe["sha256"]) == 64 and len(manifest["content_sha256"]) == 64
    assert manifest["mean"] == pytest.approx(prepared.images.mean() / 255)
    keys = next((tmp_path / "storage/data").glob("*/keys.txt")).read_text().split()
    assert sorted(keys) == [f"{i:06d}.png" for i in range(5)]


def test_content_decides_the_hash_and_the_place_does_not(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    np.save(tmp_path / "a.npy", pictures(8))
    np.save(tmp_path / "b.npy", pictures(8))
    np.save(tmp_path / "c.npy", pictures(8, seed=1))
    a, b, c = (Dataset(ImageFiles(str(tmp_path / f"{name}.npy")), 24).hash(Folder(storage)) for name in "abc")
    assert a == b != c
    assert Dataset(ImageFiles(str(tmp_path / "a.npy")), 12).hash(Folder(storage)) != a
    assert Dataset(ImageFiles(str(tmp_path / "a.npy"), duplicates=0.9), 24).hash(Folder(storage)) != a
    np.save(tmp_path / "a.npy", pictures(9))  # a file that changes is noticed
    assert Dataset(ImageFiles(str(tmp_path / "a.npy")), 24).hash(Folder(storage)) != a


def test_near_duplicates_go(tmp_path: Path) -> None:
    images = pictures(20)
    brighter = (images[:3] // 2 + 60).astype(np.uint8)  # the same up to contrast and mean
    np.save(tmp_path / "set.npy", np.concatenate([images, brighter]))
    dataset, storage = Dataset(ImageFiles(str(tmp_path / "set.npy")), 24), Folder(tmp_path / "storage")
    assert known_count(dataset, storage) == 23, "as nothing has been read yet"
    assert load(tmp_path / "set.npy", 24, tmp_path / "storage").manifest["dropped_duplicates"] == 3
    assert known_count(dataset, storage) == 20 and known_count(Dataset(Disks(), 24), storage) is None
    assert load(tmp_path / "set.npy", 24, tmp_path / "storage", duplicates=1.0).manifest["count"] == 23


@pytest.mark.parametrize(("width", "height", "top", "left", "side"), [(178, 218, 29, 9, 160), (89, 109, 14, 4, 80)])
def test_celeba_frame(width: int, height: int, top: int, left: int, side: int, tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    folder = write_folder(tmp_path / "img_align_celeba", colour)
    prepared = load(folder, side, tmp_path / "storage")
    expected = np.rint(colour[:, top : top + side, left : left + side].mean(axis=3)).astype(np.uint8)
    assert prepared.manifest["recipe"]["crop"] == "celeba"
    assert np.abs(np.sort(prepared.images, axis=0).astype(int) - np.sort(expected, axis=0)).max() <= 1


def write_lmdb(folder: Path, images: np.ndarray, kind: str) -> Path:
    """Images as LSUN comes: values are image files, keys are hashes."""
    with lmdb.open(str(folder), map_size=1 << 26) as database, database.begin(write=True) as writing:
        for i, image in enumerate(images):
            file = io.BytesIO()
            Image.fromarray(image).save(file, kind, lossless=True, quality=95)
            writing.put(hashlib.sha1(bytes([i])).hexdigest().encode(), file.getvalue())
    return folder


@pytest.mark.parametrize(("height", "width"), [(256, 341), (300, 256)])
def test_lsun_is_cropped_at_the_top_left(height: int, width: int, tmp_path: Path) -> None:
    images = pictures(4, height, width)
    export = write_lmdb(tmp_path / "bedroom_val_lmdb", images, "WEBP")
    folder = write_folder(tmp_path / "exported", images)
    from_lmdb = load(export, 256, tmp_path / "storage")
    from_folder = load(folder, 256, tmp_path / "storage", crop="lsun")
    assert as_set(from_lmdb.images) == as_set(from_folder.images) == as_set(images[:, :256, :256])
    assert from_lmdb.manifest["recipe"]["crop"] == from_folder.manifest["recipe"]["crop"] == "lsun"
    assert as_set(load(folder, 256, tmp_path / "storage").images) != as_set(images[:, :256, :256])
    colour = np.repeat(images[..., None], 3, axis=3)
    jpeg = load(write_lmdb(tmp_path / "jpeg", colour, "JPEG"), 64, tmp_path / "storage")
    assert jpeg.images.shape == (4, 64, 64)
    keys = (tmp_path / "storage/data" / jpeg.manifest["hash"] / "keys.txt").read_text().split()
    assert sorted(keys) == sorted(hashlib.sha1(bytes([i])).hexdigest() for i in range(4))


def test_lmdb_is_needed_for_lsun_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = write_lmdb(tmp_path / "lmdb", pictures(2, 256, 256), "PNG")
    folder = write_folder(tmp_path / "folder", pictures(2))
    monkeypatch.setitem(sys.modules, "lmdb", None)
    assert load(folder, 24, tmp_path / "storage").manifest["count"] == 2
    with pytest.raises(UserError, match=r"pip install 'gahb\[lsun\]'"):
        load(export, 24, tmp_path / "storage")


def test_a_limit_reads_a_choice_of_the_images(tmp_path: Path) -> None:
    images = pictures(30)
    folder = write_folder(tmp_path / "set", images)
    np.save(tmp_path / "set.npy", images)
    storage = tmp_path / "storage"
    for path in (folder, write_zip(tmp_path / "set.zip", folder), tmp_path / "set.npy"):
        every, ten, twenty = (load(path, 24, storage, limit=limit) for limit in (0, 10, 20))
        assert as_set(ten.images) < as_set(twenty.images) < as_set(every.images) == as_set(images)
        assert ten.manifest["found"] == 10 and ten.manifest["recipe"]["limit"] == 10
        assert "limit" not in every.manifest["recipe"]


def test_other_images_are_cropped_to_their_central_square(tmp_path: Path) -> None:
    images = pictures(4, height=20, width=33)
    np.save(tmp_path / "wide.npy", images)
    assert as_set(load(tmp_path / "wide.npy", 20, tmp_path / "storage").images) == as_set(images[:, :, 6:26])


def test_shrinking_averages(tmp_path: Path) -> None:
    checkerboard = (np.indices((1, 40, 40)).sum(axis=0) % 2 * 255).astype(np.uint8)
    np.save(tmp_path / "c.npy", checkerboard)
    small = load(tmp_path / "c.npy", 10, tmp_path / "storage").images
    assert np.abs(small.astype(int) - 127.5).max() <= 3


def test_a_synthetic_set_grows_without_changing(tmp_path: Path) -> None:
    dataset = Dataset(Disks(), 16)
    short = prepare(dataset, Folder(tmp_path), 10)
    first = np.array(short.images)
    long = prepare(dataset, Folder(tmp_path), 150)
    assert len(first) == 10 and len(long.images) == 150
    assert np.array_equal(long.images[:10], first)
    assert len(prepare(dataset, Folder(tmp_path), 20).images) == 150  # what is there is enough
    assert np.array_equal(short.images, first)  # a reader of the shorter one is not disturbed


def test_shuffling_moves_the_pixels_of_all_images_alike(tmp_path: Path) -> None:
    images = pictures(30)
    np.save(tmp_path / "set.npy", images)
    for source in (ImageFiles(str(tmp_path / "set.npy")), Disks()):
        plain, shuffled = (prepare(Dataset(source, 24, s), Folder(tmp_path / "storage"), 70) for s in (False, True))
        assert plain.manifest["hash"] != shuffled.manifest["hash"]
        assert "shuffled" not in plain.manifest["recipe"] and shuffled.manifest["recipe"]["shuffled"]
        assert np.array_equal(unshuffle(shuffled.images), plain.images)
        assert np.array_equal(np.sort(shuffled.images.reshape(-1, 576)), np.sort(plain.images.reshape(-1, 576)))
        assert not np.array_equal(shuffled.images, plain.images)


@pytest.mark.parametrize("side", [1, 2, 7, 20])
def test_unshuffling_is_the_inverse_of_a_shuffle_that_keeps_no_neighbours(side: int) -> None:
    images = np.arange(3 * side**2).reshape(3, side, side)
    assert np.array_equal(unshuffle(shuffle(images)), images) and np.array_equal(shuffle(unshuffle(images)), images)
    assert np.array_equal(np.sort(permutation(side)), np.arange(side**2))
    neighbours = np.abs(np.diff(permutation(side))) == 1
    assert neighbours.sum() <= 0.02 * side**2 + 2


def truncated_jpeg(tmp_path: Path) -> Path:
    folder = write_folder(tmp_path / "set", pictures(5, 64, 64), ".jpg")
    file = folder / "000002.jpg"
    file.write_bytes(file.read_bytes()[:-300])
    return folder


def empty_folder(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def saved(tmp_path: Path, name: str, array: np.ndarray) -> Path:
    np.save(tmp_path / name, array, allow_pickle=array.dtype == object)
    return tmp_path / name


def text_file(tmp_path: Path) -> Path:
    (tmp_path / "x.npy").write_text("no array")
    return tmp_path / "x.npy"


def no_lmdb(tmp_path: Path) -> Path:
    (tmp_path / "bedroom").mkdir()
    (tmp_path / "bedroom/data.mdb").write_text("no database")
    return tmp_path / "bedroom"


def mixed_celeba(tmp_path: Path) -> Path:
    folder = write_folder(tmp_path / "faces", pictures(2, 218, 178), ".jpg")
    Image.fromarray(pictures(1, 50, 50)[0]).save(folder / "stray.jpg")
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "nowhere", "no such file or folder"),
        (damaged_zip, "000003.jpg"),
        (truncated_jpeg, "000002.jpg"),
        (empty_folder, "holds no image"),
        (lambda p: saved(p, "f.npy", np.zeros((3, 24, 24))), "uint8"),
        (lambda p: saved(p, "f.npy", np.zeros((24, 24), np.uint8)), "uint8"),
        (lambda p: saved(p, "f.npy", np.array([{"a": 1}], dtype=object)), "not a .npy array"),
        (text_file, "not a .npy array"),
        (mixed_celeba, "stray.jpg"),
        (no_lmdb, "data.mdb cannot be read"),
        (lambda p: write_lmdb(p / "lmdb", pictures(2, 256, 200), "PNG"), "256×256"),
        (lambda p: saved(p, "small.npy", pictures(3, 8, 8)), "only 8 pixels wide"),
    ],
)
def test_sources_that_cannot_be_used(make, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=message) as error:
        load(make(tmp_path), 24, tmp_path / "storage")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "storage").rglob("*.npy")), "nothing half-written"


def test_an_image_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match="cannot be decoded"):
        load(write_folder(tmp_path / "set", pictures(1)), 24, tmp_path / "storage")


def test_real_faces(real_images: Path, tmp_path: Path) -> None:
    archive = real_images / "img_align_celeba_half.zip"
    if not archive.exists():
        pytest.skip(f"no {archive.name} in GAHB_TEST_DATA")
    source = ImageFiles(str(archive))
    assert source.frame == "celeba" and len(source.keys) == 10_000
    assert source.square(source.keys[0], source.frame).shape == (80, 80)
