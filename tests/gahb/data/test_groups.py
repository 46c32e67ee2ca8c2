from pathlib import Path

import numpy as np
import pytest

from gahb.data.dataset import Dataset, prepare
from gahb.data.groups import Groups
from gahb.data.image_files import ImageFiles
from gahb.data.splits import Split
from gahb.errors import UserError
from gahb.storage.local import Folder

COUNT, PEOPLE, N, HELD_OUT = 120, 15, 30, 20


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Random images that stand for photographs of people, and `people.txt`, which says of whom."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "faces.npy", rng.integers(0, 256, (COUNT, 20, 20), dtype=np.uint8))
    people = rng.integers(0, PEOPLE, COUNT)
    (tmp_path / "people.txt").write_text("".join(f"{key} {person}\n" for key, person in enumerate(people)))
    return tmp_path


def source(folder: Path) -> ImageFiles:
    return ImageFiles(str(folder / "faces.npy"), split=str(folder / "people.txt"))


def test_no_group_is_in_two_of_a_b_and_the_held_out_images(faces: Path) -> None:
    storage = Folder(faces / "storage")
    prepared = prepare(Dataset(source(faces), 20), storage, 1)
    keys = storage.read(f"data/{prepared.manifest['hash']}/keys.txt").decode().split()
    person = dict(line.split() for line in (faces / "people.txt").read_text().splitlines())
    a, b = (Split(subset, N, HELD_OUT) for subset in "AB")
    rows = [a.held_out_rows(prepared.groups), a.rows(prepared.groups), b.rows(prepared.groups)]
    assert [len(some) for some in rows] == [HELD_OUT, N, N] and len(set(np.concatenate(rows))) == HELD_OUT + 2 * N
    people = [{person[keys[row]] for row in some} for some in rows]
    assert all(people) and not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])
    for split, some in ((a, rows[1]), (b, rows[2])):
        assert np.array_equal(split.training_images(prepared).squeeze(1).numpy(), prepared.images[some])
        fewer = Split(split.subset, 10, HELD_OUT).rows(prepared.groups)
        assert np.array_equal(fewer, some[:10])  # nested in N
    assert np.array_equal(b.held_out_images(prepared).squeeze(1).numpy(), prepared.images[rows[0]])


def test_groups_leave_fewer_images(faces: Path) -> None:
    prepared = prepare(Dataset(source(faces), 20), Folder(faces / "storage"), 1)
    with pytest.raises(UserError, match=r"in groups has 120 images.* leave at most"):
        Split("A", 50, 20).check(prepared, "faces")
    Split("A", 50, 20).check_size(len(prepared.images), "faces")  # without them there would be enough


def test_content_and_not_path_of_the_list_decides_the_data_set(faces: Path) -> None:
    storage = Folder(faces / "storage")
    before = Dataset(source(faces), 20).hash(storage)
    (faces / "people.txt").rename(faces / "moved.txt")
    moved = ImageFiles(str(faces / "faces.npy"), split=str(faces / "moved.txt"))
    assert Dataset(moved, 20).hash(storage) == before
    assert Dataset(ImageFiles(str(faces / "faces.npy")), 20).hash(storage) != before
    (faces / "moved.txt").write_text("".join(f"{key} {key % 3}\n" for key in range(COUNT)))
    again = ImageFiles(str(faces / "faces.npy"), split=str(faces / "moved.txt"))
    assert Dataset(again, 20).hash(storage) != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0 a\n1\n", "line 2 needs an image and its group"),
        ("0 a\n0 b\n", "line 2 puts 0 into b, and another into a"),
        ("0 a\n\nfaces/1 b\n", "names no group for 1, as for 1 of 2 images"),
    ],
)
def test_lists_that_cannot_be_used(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(UserError, match=message):
        Groups.read(str(tmp_path / "list.txt")).of(["0", "1"])


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"split=.*cannot be read"):
        Groups.read(str(tmp_path / "none.txt"))


def test_a_damaged_list_of_a_prepared_set_is_told(faces: Path) -> None:
    storage = Folder(faces / "storage")
    dataset = Dataset(source(faces), 20)
    prepared = prepare(dataset, storage, 1)
    file = f"data/{prepared.manifest['hash']}/groups.npy"
    storage.write(file, storage.read(file)[:-8])
    with pytest.raises(UserError, match="cannot be read"):
        prepare(dataset, storage, 1)


def test_no_group_of_real_faces_is_in_two_subsets(real_images: Path, tmp_path: Path) -> None:
    archive = real_images / "img_align_celeba_half.zip"
    if not archive.exists():
        pytest.skip(f"no {archive.name} in GAHB_TEST_DATA")
    keys = ImageFiles(str(archive)).keys
    person = {key: f"person{number % 977}" for number, key in enumerate(keys)}  # their identities are not there
    (tmp_path / "people.txt").write_text("".join(f"{key} {name}\n" for key, name in person.items()))
    faces = ImageFiles(str(archive), split=str(tmp_path / "people.txt"), limit=2000)
    storage = Folder(tmp_path / "storage")
    prepared = prepare(Dataset(faces, 20), storage, 1)
    kept = storage.read(f"data/{prepared.manifest['hash']}/keys.txt").decode().splitlines()
    a, b = (Split(subset, 800, 200) for subset in "AB")
    rows = a.rows(prepared.groups), b.rows(prepared.groups), a.held_out_rows(prepared.groups)
    assert [len(some) for some in rows] == [800, 800, 200]
    people = [{person[kept[row]] for row in some} for some in rows]
    assert not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])
