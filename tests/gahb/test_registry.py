"""Guests: files and packages that bring data sets, architectures, sweeps and analyses, good ones and bad ones."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import gahb_analysis.catalog
import gahb_sweeps.catalog
import pytest
import torch

import gahb
from gahb import plugins
from gahb.errors import UserError
from gahb.models.architectures import ARCHITECTURES, UNet
from gahb.registry import GROUPS
from gahb.trial import Trial
from tests.helpers import Ended, Place, file_of

assert gahb_analysis.catalog and gahb_sweeps.catalog  # what is built in is there before a test registers anything

PLAIN = {"dataset": "c_alpha", "resolution": 20, "n_train": 10}


def test_a_files_classes_are_named_in_trials_and_their_keys_are_typed(tmp_path: Path) -> None:
    plugins.load_file(file_of(tmp_path, "dataset", "architecture"))
    flat = {**PLAIN, "dataset": "checkers", "cell": 2, "architecture": "plain", "channels": 4}
    trial = Trial.of(flat)
    assert Trial.of(trial.flat()) == trial and flat.items() <= trial.flat().items()
    assert {(row["group"], row["name"]) for row in trial.plugins} == {
        ("datasets", "checkers"),
        ("architectures", "plain"),
    }
    with pytest.raises(UserError, match="cell='x': must be a whole number"):
        Trial.of({**flat, "cell": "x"})
    with pytest.raises(UserError, match="cell=0: must be at least 1"):
        Trial.of({**flat, "cell": 0})
    with pytest.raises(UserError, match="does not apply to dataset=checkers architecture=unet"):
        Trial.of({**flat, "architecture": "unet"})


def test_a_files_content_is_part_of_the_signature_of_trials_that_use_it_and_of_no_other(
    tmp_path: Path, place: Place
) -> None:
    before = Trial.of(PLAIN).signature("data")
    signatures = set()
    for more in ("", "# another version"):
        things = [dict(group._things) for group in GROUPS.values()]
        plugins.load_file(file_of(tmp_path, "dataset", "architecture", more))
        network = Trial.of({**PLAIN, "architecture": "plain"})
        images = Trial.of({**PLAIN, "dataset": "checkers"})
        signatures |= {network.signature("data"), images.signature(images.dataset.hash(place.store))}
        assert Trial.of(PLAIN).signature("data") == before and Trial.of(PLAIN).plugins == []
        for group, known in zip(GROUPS.values(), things, strict=True):
            group._things = known
    assert len(signatures) == 4


def test_what_a_record_asks_for_and_is_not_here_is_named_and_never_imported(tmp_path: Path) -> None:
    flat = {**PLAIN, "architecture": "mixer"}
    row = {"group": "architectures", "name": "mixer", "origin": "my-package 1.2"}
    with pytest.raises(
        UserError, match=r"uses the architecture 'mixer' of my-package 1\.2.*pip install my-package==1.2"
    ):
        Trial.of(flat, [row])
    with pytest.raises(UserError, match=r"'mixer' of nets.py 0123456789ab.*name the file with --plugin"):
        Trial.of(flat, [{**row, "origin": "nets.py 0123456789ab"}])
    for poisoned in ({**row, "origin": "x; rm -rf /"}, {**row, "group": "os"}, {"name": "x"}, "x", 3):
        with pytest.raises(UserError, match="cannot be read"):
            Trial.of(flat, [poisoned])


def test_another_version_of_a_guest_will_do_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plugins.load_file(file_of(tmp_path, "architecture"))
    row = {"group": "architectures", "name": "plain", "origin": "guest.py 0123456789ab"}
    Trial.of({**PLAIN, "architecture": "plain"}, [row])
    assert "guest.py 0123456789ab; here is guest.py" in caplog.text
    caplog.clear()
    Trial.of({**PLAIN, "architecture": "plain"}, Trial.of({**PLAIN, "architecture": "plain"}).plugins)
    assert not caplog.text


def test_a_file_whose_name_no_record_could_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its name may have letters"):
        plugins.load_file(file_of(tmp_path, "architecture", name="my net.py"))


def test_only_a_file_that_is_being_loaded_registers() -> None:
    with pytest.raises(UserError, match=r"entry points, group gahb\.architectures"):
        plugins.register_architecture(UNet)


NETWORK = """
from dataclasses import dataclass
from torch import nn
from gahb import plugins
from gahb.grids import grid

@plugins.register_architecture
@dataclass(frozen=True)
class Net(plugins.Architecture):
    name = "net"
    {fields}
    def build(self):
        return {build}

def trials(overrides=None):
    axes = {{"dataset": "disks", "resolution": 8, "n_train": 1, "n_test": 1, "architecture": "net", "images": 8}}
    return grid(axes, overrides)
"""


def network(build: str = "nn.Conv2d(1, 1, 3, padding=1, bias=False)", fields: str = "") -> str:
    return NETWORK.format(build=build, fields=fields)


MANIFOLD = """
from dataclasses import dataclass
from gahb import plugins

@plugins.register_dataset
@dataclass(frozen=True)
class Line(plugins.Manifold):
    name = "line"
    def parameters(self, resolution, index): ...
    def draw(self, resolution, parameters): ...
"""

LAUNCH = "gahb-sweep launch guest.py"
BAD = [
    ("gahb-sweep plan none.py", "", "none.py cannot be read"),
    (LAUNCH, "raise ValueError('boom\\nand more')", r"guest.py cannot be loaded \(ValueError: boom\); mend it"),
    (LAUNCH, "import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
    (LAUNCH, "exit(0)", "cannot be loaded"),
    (LAUNCH, "def f(:", "SyntaxError"),
    (LAUNCH, "x = 1", "brings nothing"),
    (LAUNCH, "def run(context): pass", "has no function trials"),
    (LAUNCH, "def trials(overrides=None): return [1]", "must return trials"),
    (LAUNCH, "def trials(overrides=None): return []", "must return trials"),
    (LAUNCH, "def trials(overrides=None): return {}[0]", "raised KeyError"),
    (LAUNCH, "trials = 3", r"needs a function trials\(overrides\)"),
    (f"{LAUNCH} --small", "def trials(overrides=None): return []", "no small variant"),
    ("gahb-sweep list --plugin demo.py", "def trials(overrides=None): return []", "'demo' of .* one of that name"),
    (LAUNCH, network().replace('"net"', '"unet"'), "'unet' of guest.py .*: gahb has one of that name"),
    (LAUNCH, network(fields="depth: float = 2.0"), "field 'depth' is a finite number, and that of .* transformer"),
    (LAUNCH, network(fields="alpha: float = 2.0"), "field 'alpha' is a key of data sets already"),
    (LAUNCH, network(fields="seed: int = 2"), "field 'seed' is a key of trials already"),
    (LAUNCH, network(fields="layers_: list = None"), "field 'layers_' must be bool, int, float or str"),
    (LAUNCH, network(fields="size: int"), "field 'size' needs a default"),
    (LAUNCH, network().replace("@dataclass(frozen=True)\n", "@dataclass\n"), "frozen"),
    (LAUNCH, network().replace("def build", "def make"), r"has no build\(…\)"),
    (LAUNCH, network().replace("(plugins.Architecture)", ""), "derived from gahb.plugins.Architecture"),
    (LAUNCH, MANIFOLD, "the data set 'line' of guest.py .*: a manifold needs a dimension"),
    (LAUNCH, network("nn.Conv2d(1, 1, 3, padding=1)"), "'net' is not homogeneous"),
    (LAUNCH, network("nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))"), "homog"),
    (LAUNCH, network("nn.Conv2d(1, 1, 3, bias=False)"), r"\(2, 1, 6, 6\) of images \(2, 1, 8, 8\)"),
    (LAUNCH, network("nn.Conv2d(3, 1, 3, bias=False)"), "fails on images of 8×8"),
    (LAUNCH, network("1 / 0"), "ZeroDivisionError"),
    ("gahb-sweep plan guest.py", network("nn.Conv2d(1, 1, 3, bias=False)"), "must keep their shape"),
    ("gahb-analyze guest --plugin guest.py", "def run(sweep): pass", r"a function run\(context, …\)"),
    ("gahb-analyze guest --plugin guest.py", "def run(context, json: bool = False): pass", "'json' is one that"),
    ("gahb-analyze guest --plugin guest.py", "def run(context, x: int | str = 1): pass", "cannot be a command"),
    ("gahb-analyze guest --plugin guest.py", "def run(context): return 3", "returned int, which is no AnalysisResult"),
    ("gahb-analyze pair --plugin pair.py", "def run(context): return 3", "'pair' of .*: gahb has one of that name"),
]


@pytest.mark.parametrize(("words", "source", "message"), BAD)
def test_a_bad_guest_is_one_clear_line(
    words: str, source: str, message: str, command: Callable[..., Ended], tmp_path: Path
) -> None:
    named = next((name for name in ("pair.py", "demo.py") if name in words), "guest.py")
    (tmp_path / named).write_text(source)
    before = {path.name for path in tmp_path.iterdir()}
    ended = command(*words.split())
    assert ended.code == 2 and not ended.out, (ended.out, ended.err)
    (line,) = ended.err.splitlines()
    assert re.search(message, line), line
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} <= before, "something was started"


def installed(folder: Path, points: str, module: str, version: str = "1.0") -> None:
    """A package in a folder as installed, with entry points and one module."""
    about = folder / f"a_guest-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: a-guest\nVersion: {version}\n")
    (about / "entry_points.txt").write_text(points)
    (folder / "a_guest.py").write_text(module)


@pytest.mark.parametrize(
    ("points", "module", "message"),
    [
        ("[gahb.sweeps]\nx = a_guest", "raise OSError('no such thing')", "OSError: no such thing.*mend or uninstall"),
        ("[gahb.sweeps]\nx = a_guest:nothing", "", "AttributeError"),
        ("[gahb.sweeps]\nx = a_guest", "", "'x' of a-guest 1.0: a sweep needs a function trials"),
        ("[gahb.sweeps]\ndemo = a_guest", "def trials(o): pass", "'demo' of a-guest 1.0: gahb has one of that name"),
        ("[gahb.architectures]\nx = gahb.models.architectures:UNet", "", "'x' of .*calls itself 'unet'"),
        ("[gahb.datasets]\nx = a_guest:x", "x = 3", "derived from gahb.plugins.Source"),
        ("[gahb.architectures]\nx = a_guest:X", "class X: pass", "derived from gahb.plugins.Architecture"),
    ],
)
def test_a_bad_package_is_one_clear_line(
    points: str,
    module: str,
    message: str,
    command: Callable[..., Ended],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed(tmp_path / "site", points, module)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(__import__("sys").modules, "a_guest", raising=False)
    for group in GROUPS.values():
        group._installed = False
    ended = command("gahb-sweep", "list")
    assert ended.code == 2 and len(ended.err.splitlines()) == 1
    assert re.search(message, ended.err), ended.err


def test_a_guests_parts_are_listed_with_their_origin(command: Callable[..., Ended], tmp_path: Path) -> None:
    file = file_of(tmp_path, "dataset", "architecture", "sweep", name="mine.py")
    rows = command("gahb-sweep", "list", "--json", "--plugin", str(file)).json
    found = [(row["group"], row["name"], row["origin"].split()[0]) for row in rows["plugins"]]
    assert sorted(found) == [
        ("architectures", "plain", "mine.py"),
        ("datasets", "checkers", "mine.py"),
        ("sweeps", "mine", "mine.py"),
    ]
    (row,) = [row for row in rows["sweeps"] if row["name"] == "mine"]
    assert row["trials"] == 4 and row["figures"] == "–"


def test_an_analysis_gets_its_options_from_its_signature(command: Callable[..., Ended], finished: Place) -> None:
    source = """
from gahb.plugins import AnalysisResult, finished_trials

def run(context, sweep: str, power: float = 2.0, loud: bool = False):
    '''Raise the gaps to a power.'''
    runs = finished_trials(context.record, sweep)
    names = context.map_on_cluster(name_of, runs, [run.name for run in runs])
    data = {"names": names, "power": power, "loud": loud}
    return AnalysisResult(name="x", sweep=sweep, runs=runs, settings={"power": power}, data=data)

def name_of(context, run):
    return run.name
"""
    Path("powers.py").write_text(source)
    words = ("gahb-analyze", "powers", "tiny", "--power", "3", "--loud", "--json", *finished.flags)
    data = command(*words, "--plugin", "powers.py").json
    assert data["power"] == 3.0 and data["loud"] is True
    assert sorted(data["names"]) == ["16x16-N1-A", "16x16-N1-B", "16x16-N64-A", "16x16-N64-B"]
    assert "Raise the gaps to a power." in command("gahb-analyze", "--help", "--plugin", "powers.py").out


def test_a_guests_model_is_trained_by_a_worker_that_was_sent_its_code_and_read_where_it_is(
    command: Callable[..., Ended], ray_here: None, place: Place, tmp_path: Path
) -> None:
    file = file_of(tmp_path, "dataset", "architecture", "sweep", name="mine.py")
    words = ["n_train=1", "subset=A", "images=320", *place.flags]
    (row,) = command("gahb-sweep", "launch", str(file), *words, "--json").json["trials"]
    assert row["state"] == "finished" and row["receptive_field"] is None
    card = json.loads((place.record.artifacts(row["run_id"]) / "card.json").read_text())
    assert [plugin["name"] for plugin in card["plugins"]] == ["checkers", "plain"]
    denoiser = gahb.load(row["run_id"], record=place.record.uri, storage=place.store.uri)
    y = torch.randn(1, 1, 12, 12)
    torch.testing.assert_close(denoiser(2 * y), 2 * denoiser(y))
    for name in ("plain", "checkers"):
        del GROUPS["architectures" if name == "plain" else "datasets"]._things[name]  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"uses the data set 'checkers' of mine.py .*name the file with --plugin"):
        gahb.load(row["run_id"], record=place.record.uri, storage=place.store.uri)
    assert row["run_id"][:8] in command("gahb-sweep", "status", *place.flags).out
    shutil.rmtree(place.storage / "data")


def test_built_in_names_are_known_without_a_look_at_installed_packages() -> None:
    ARCHITECTURES._installed = False
    assert ARCHITECTURES["unet"] is UNet and not ARCHITECTURES._installed
