"""The MLflow UI on a sweep, as Chromium shows it. `GAHB_UI_PICTURES` names a folder that keeps the pictures."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gahb.tracking import lookup
from gahb.tracking.run import Run
from gahb.tracking.views import models_link, of_analyses, of_trials, run_link
from tests.helpers import Place, copy, free_ports

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.ui

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
ASSISTANT = "[data-component-id='mlflow.assistant.chat_panel.close']"
"""What closes the panel that takes a quarter of the window."""

Open = Callable[..., "Page"]


def command(app: str, *words: str) -> list[str]:
    return [sys.executable, "-c", f"from {app}.cli import main; main()", *words]


@pytest.fixture(scope="module")
def place(finished: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A sweep with its pairs and its report."""
    place = copy(finished, tmp_path_factory.mktemp("ui") / "copy")
    for analysis in ("pairs", "report"):
        subprocess.run(command("gahb_analysis", analysis, "tiny", *place.flags), check=True)
    return place


@pytest.fixture(scope="module")
def address(place: Place) -> Iterator[str]:
    """What `gahb-sweep ui` prints, while it runs."""
    words = command("gahb_sweeps", "ui", "tiny", "--port", str(free_ports(1)[0]), *place.flags)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield process.stdout.readline().strip()
        process.terminate()


@pytest.fixture(scope="module")
def window() -> Iterator["Page"]:
    if not CHROMIUM:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 2400, "height": 1200})
        page.set_default_timeout(120_000)
        yield page
        browser.close()


@pytest.fixture
def open_page(window: "Page", address: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Open an address of the UI, wait until it shows something, and take a picture at the end of the test."""

    def open_page(link: str, shows: str) -> "Page":
        window.goto("about:blank")
        window.goto(f"{address.partition('#')[0]}{link}")
        window.locator(shows).first.wait_for()
        if window.locator(ASSISTANT).count():
            window.locator(ASSISTANT).click()
        return window

    yield open_page
    folder = Path(os.environ.get("GAHB_UI_PICTURES") or tmp_path)
    folder.mkdir(exist_ok=True)
    window.wait_for_timeout(3000)
    window.screenshot(path=folder / f"{request.node.name.removeprefix('test_')}.png")


def trial(place: Place, name: str) -> Run:
    return lookup.find(place.record, name)


def analysis(place: Place, kind: str) -> Run:
    return next(run for run in lookup.analyses(place.record, "tiny") if run.kind == kind)


def column(page: "Page", key: str) -> list[str]:
    cells = page.locator(f'[role=gridcell][col-id="{key}"]')
    cells.first.wait_for()
    return [cell.inner_text() for cell in cells.all()]


def link_to(experiment_id: str, key: str) -> str:
    return next(view.link(experiment_id) for view in (*of_trials(), *of_analyses()) if view.key == key)


def test_trials_are_sorted_by_n_beside_their_gap(open_page: Open, address: str, place: Place) -> None:
    page = open_page(f"#{address.partition('#')[2]}", "text=16x16-N64-B")
    assert column(page, "metrics.`n`") == ["1", "1", "64", "64"]
    gaps = [float(text) for text in column(page, "metrics.`psnr_gap`")]
    expected = [trial(place, name).metrics["psnr_gap"] for name in column_of_names(page)]
    assert gaps == pytest.approx(expected, abs=1e-9)
    assert column(page, "params.`subset`") in (["B", "A"] * 2, ["A", "B"] * 2)
    assert set(column(page, "params.`resolution`")) == {"16"} and set(column(page, "params.`architecture`")) == {"unet"}


def column_of_names(page: "Page") -> list[str]:
    return [text.splitlines()[-1] for text in column(page, "attributes.`Run Name`")]  # after its colour


@pytest.mark.parametrize("key", ["gahb-charts", "gahb-law"])
def test_charts_are_drawn(key: str, open_page: Open, place: Place) -> None:
    page = open_page(link_to(trial(place, "16x16-N1-A").experiment_id, key), ".js-plotly-plot path.point")
    titles = {"gahb-charts": ["psnr_gap", "train_psnr vs test_psnr"], "gahb-law": ["by_n/psnr_gap"]}[key]
    for title in titles:
        page.get_by_text(title, exact=True).first.wait_for()
    points = page.locator(".js-plotly-plot path.point").count()
    assert points >= (4 if key == "gahb-charts" else 2)


def test_images_move_with_the_slider(open_page: Open, place: Place) -> None:
    page = open_page(link_to(trial(place, "16x16-N1-A").experiment_id, "gahb-images"), "img[src*='images%2Fdenoised']")
    assert page.get_by_text("denoised", exact=True).count() and page.locator("input, [role=slider]").count()


def test_pictures_of_the_analyses_are_side_by_side(open_page: Open, place: Place) -> None:
    page = open_page(link_to(analysis(place, "pairs").experiment_id, "gahb-pictures"), "img[src*='images%2F']")
    for name in ("pairs", "scaling"):
        assert page.get_by_text(name, exact=True).count()


def test_a_trials_page_says_who_made_it_and_what_came_of_it(open_page: Open, place: Place) -> None:
    run = trial(place, "16x16-N64-A")
    page = open_page(run_link(run.experiment_id, run.run_id), "text=Created by")
    page.get_by_text("unet trained on 64 images of c_alpha, 16×16, subset A").wait_for()
    for about, words in (
        ("Created by", [run.tags["mlflow.user"]]),
        ("Source", ["gahb", run.tags["mlflow.source.git.commit"][:7]]),
    ):
        shown = page.get_by_text(about, exact=True).locator("xpath=..").inner_text()
        assert set(words) <= set(shown.splitlines()), shown
    assert page.get_by_role("link", name="pairs", exact=True).count()
    page.get_by_role("link", name=re.compile("^16x16-N64-A after")).first.wait_for()
    page.get_by_text("Show more").first.click()
    assert page.locator("img[src*='denoised.png']").evaluate("image => image.decode().then(() => image.naturalWidth)")


def test_checkpoints_have_their_metrics(open_page: Open, place: Place) -> None:
    run = trial(place, "16x16-N64-A")
    page = open_page(models_link(run.experiment_id), "text=16x16-N64-A after 9600")
    data: dict[str, Any] = {"datasetName": "c_alpha", "datasetDigest": run.tags["gahb.data_hash"]}
    page.locator("[role=gridcell][col-id*=psnr_gap]").first.wait_for()
    headers = page.get_by_role("columnheader").all_inner_texts()
    assert {"train_psnr", "test_psnr", "psnr_gap"} <= set(headers)
    assert any(f"{data['datasetName']} (#{data['datasetDigest']})" in header for header in headers)


def test_a_report_is_read_in_place(open_page: Open, place: Place) -> None:
    report = analysis(place, "report")
    link = run_link(report.experiment_id, report.run_id).replace("?", "/artifacts/report.html?")
    page = open_page(link, "iframe")
    inside = page.frame_locator("iframe").first
    inside.locator("h1").first.wait_for()
    assert "tiny" in inside.locator("h1").first.inner_text() and inside.locator("img").count()
