"""The two commands as a user types them: their output, and one clear line for each mistake."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gahb.quantities import duration
from gahb.tracking.run import Kind
from gahb.training import cost
from gahb.trial import Trial
from tests.helpers import TINY, Ended, Place

Command = Callable[..., Ended]
SMALL = [f"{key}={value}" for key, value in TINY.items()]


@pytest.mark.parametrize("package", ["gahb_sweeps", "gahb_analysis"])
def test_help_is_quick_because_it_imports_nothing_heavy(package: str) -> None:
    code = (
        f"import sys; sys.argv = ['x', '--help']; from {package}.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'ray', 'mlflow', 'numpy', 'pandas', 'matplotlib'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "--help" in ended.stdout


def test_a_plan_without_a_record_needs_neither_torch_nor_mlflow(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['x', 'plan', 'resolution_scaling']; from gahb_sweeps.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'ray', 'mlflow', 'pandas', 'matplotlib'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr


def test_science_imports_neither_ray_nor_mlflow() -> None:
    code = (
        "import gahb.training.loop, gahb.denoising.sampling, gahb.denoising.psnr, gahb.training.weights\n"
        "import gahb.data.similarity, gahb.data.splits\n"
        "import gahb.denoising.jacobian, sys\n"
        "assert not {'ray', 'mlflow'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_list(command: Command) -> None:
    rows = command("gahb-sweep", "list", "--json").json["sweeps"]
    trials = {row["name"]: row["trials"] for row in rows}
    assert trials.items() >= {"demo": 12, "transition": 12, "resolution_scaling": 48, "c_alpha_slopes": 10}.items()
    assert all(row.keys() == {"name", "figures", "cost", "description", "trials"} for row in rows)
    assert "15" in command("gahb-sweep", "list").out


def test_plan_of_figure_15(command: Command) -> None:
    rows = command("gahb-sweep", "plan", "resolution_scaling", "--json").json["trials"]
    assert len(rows) == len({(r["resolution"], r["n_train"], r["subset"]) for r in rows}) == 4 * 6 * 2
    by_resolution = {r["resolution"]: (r["parameters"], r["receptive_field"]) for r in rows}
    for resolution, parameters, field in ((20, 360e3, 18), (40, 1.8e6, 44), (80, 7.6e6, 92), (160, 31e6, 188)):
        assert by_resolution[resolution] == (pytest.approx(parameters, rel=0.05), field)
    assert {r["state"] for r in rows} == {"new"}
    assert len({r["signature"] for r in rows}) == 48
    assert list(Path().iterdir()) == [], "a plan writes nothing"


def test_overrides_reach_the_plan(command: Command) -> None:
    ended = command("gahb-sweep", "plan", "transition", "resolution=40", "n_train=1,10", "images=2e6", "--json")
    assert [(r["resolution"], r["n_train"], r["images"]) for r in ended.json["trials"]] == [
        (40, n, 2_000_000) for n in (1, 1, 10, 10)
    ]


def test_calibrate_tells_the_plan_what_a_trial_takes(command: Command, place: Place) -> None:
    plan = ("plan", "demo", "n_train=1", "width=4", *place.flags)
    assert "gahb-sweep calibrate" in command("gahb-sweep", *plan).err
    ladder = ("architecture=unet", "resolution=16", "width=4", "batch_size=32", "precision=float32")
    ended = command("gahb-sweep", "calibrate", *ladder, "--json", *place.flags).json
    (rate,) = ended["rates"]
    rows = command("gahb-sweep", *plan, "--json").json["trials"]
    trials = [Trial.of({"dataset": "c_alpha", "resolution": 16, "width": 4, "n_train": 1, "n_test": 128,
                        "images": 19200, "batch_size": 32})]  # fmt: skip
    expected = cost.images(trials[0]) / rate["images_per_second"] / 3600
    assert [row["hours"] for row in rows] == pytest.approx([expected] * 2)
    assert {row["hours_from"] for row in rows} == {"calibration"}
    shown = command("gahb-sweep", *plan, "--devices", "1")
    both = duration(2 * 3600 * expected)
    assert f"{both} of {ended['device']} (from calibration), {both} not done yet: about {both} on 1\n" in shown.err
    assert {"time", "memory"} <= set(shown.out.splitlines()[0].split())
    assert "speed for some" in command("gahb-sweep", *plan[:-4], "precision=bfloat16", *place.flags).err


def test_data(command: Command, place: Place) -> None:
    arguments = ("data", "disks", "resolution=16", "n_train=40", "n_test=10", "shuffled=true")
    storage = ("--storage", str(place.storage))
    ended = command("gahb-sweep", *arguments, "--json", *storage).json
    assert ended["manifest"]["count"] == 90 and ended["manifest"]["recipe"]["shuffled"] is True
    assert ended["closest_pairs"].keys() == {"n_train", "median", "max"}
    folder = place.storage / "data" / ended["manifest"]["hash"]
    assert folder == Path(ended["folder"]) and {Path(p).parent for p in ended["pictures"].values()} == {folder}
    assert {p.name for p in folder.glob("*.png")} == {"contact-sheet.png", "closest-pairs-N40.png"}
    again = command("gahb-sweep", *arguments, *storage)
    facts = dict(re.split("  +", line, maxsplit=1) for line in again.out.splitlines())
    assert facts["hash"] == ended["manifest"]["hash"] and str(folder) in again.err
    for key in ("median", "max"):
        assert facts[f"closest pair, {key}"] == f"{ended['closest_pairs'][key]:.3f}"
    assert len({line.rindex(facts[key]) for key, line in zip(facts, again.out.splitlines(), strict=True)}) == 1
    assert not Path("mlflow.db").exists()


def test_launch_status_and_show(ray_here: None, command: Command, place: Place) -> None:
    arguments = ("launch", "demo", *SMALL, "n_train=2", "--as", "mine", "--json", *place.flags)
    first, second = command("gahb-sweep", *arguments), command("gahb-sweep", *arguments)
    assert [r["trained"] for r in first.json["trials"]] == [True, True]
    assert [r["trained"] for r in second.json["trials"]] == [False, False]
    assert "nothing to train" in second.err
    plan = command("gahb-sweep", "plan", "demo", *SMALL, "n_train=2", "--json", *place.flags).json["trials"]
    for row, planned, again in zip(first.json["trials"], plan, second.json["trials"], strict=True):
        changing = ("state", "hours", "hours_from")  # what is known by now
        assert {key: value for key, value in planned.items() if key not in changing}.items() <= row.items()
        assert planned["state"] == row["state"] == "finished"
        assert (
            row["metrics"].keys() == {"train_psnr", "test_psnr", "psnr_gap", "psnr_gap_db"}
            and row["run_id"] == again["run_id"]
        )

    status = command("gahb-sweep", "status", "mine", "--json", *place.flags).json["trials"]
    assert [r["images_seen"] for r in status] == [TINY["images"]] * 2
    assert command("gahb-sweep", "status", *place.flags).out.count("finished") == 2
    shown = command("gahb-sweep", "show", "16x16-N2-B", "--json", *place.flags).json
    assert shown["sweeps"] == ["mine"] and shown["params"]["n_train"] == "2"
    assert shown["metrics"]["psnr_gap"] == shown["history"]["psnr_gap"][-1][1]
    assert "psnr_gap" in command("gahb-sweep", "show", "16x16-N2-B", *place.flags).out


def test_defaults_are_in_the_working_directory_and_environment(
    ray_here: None, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = [f"{key}={value}" for key, value in {**TINY, "images": 32}.items()]
    launch = ("launch", "demo", *small, "n_train=1", "subset=A")
    assert command("gahb-sweep", *launch).code == 0
    assert {p.name for p in tmp_path.iterdir()} == {"mlflow.db", "mlflow.db.lock", "gahb-storage"}
    (tmp_path / "there").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/there/r.db")
    monkeypatch.setenv("GAHB_STORAGE", str(tmp_path / "there" / "s"))
    assert command("gahb-sweep", *launch).code == 0
    assert {p.name for p in (tmp_path / "there").iterdir()} == {"r.db", "r.db.lock", "s"}


def test_a_cluster_out_of_reach(place: Place) -> None:
    code = "from gahb_sweeps.cli import main; main()"
    launch = ["launch", "demo", *SMALL, "n_train=1", "--address", "127.0.0.1:1", *place.flags]
    ended = subprocess.run([sys.executable, "-c", code, *launch], capture_output=True, text=True)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert "gahb-sweep: no Ray cluster to be had at 127.0.0.1:1" in ended.stderr.splitlines()[-1]
    assert place.record.runs(Kind.TRIAL) == []


def test_json_is_alone_on_stdout(command: Command, finished: Place) -> None:
    ended = command("gahb-analyze", "scaling", "tiny", "--json", *finished.flags)
    assert json.loads(ended.out)["scaling"]
