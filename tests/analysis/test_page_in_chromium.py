"""A report's page as Chromium shows it, without a network: hover, dark, print."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gahb_analysis.page import page
from PIL import Image

from gahb.tracking.run import Run
from tests.analysis.test_page import TABLES, TRIALS, scaling

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.ui

assert scaling, "a fixture"


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-quic"])
        yield browser
        browser.close()


@pytest.fixture
def shown(browser: "Browser", scaling: tuple[Run, Path], tmp_path: Path) -> Iterator["Page"]:
    """The page of one analysis, drawn, in a window that is offline."""
    run, folder = scaling
    white = io.BytesIO()
    Image.new("RGB", (400, 300), "white").save(white, "PNG")
    (folder / "scaling.png").write_bytes(white.getvalue())
    file = tmp_path / "report.html"
    file.write_text(page("s", TRIALS, [(run, folder)], {}))
    window = browser.new_page(offline=True)
    window.goto(file.as_uri())
    window.locator(".live .points path").first.wait_for()
    yield window
    window.close()


def test_hover_tells_the_gap(shown: "Page") -> None:
    point = shown.locator(".live .points path").first
    point.hover(force=True)
    text = shown.locator(".hoverlayer .hovertext").first.text_content() or ""
    (first, *_) = TABLES["scaling"].sort_values("n_train").itertuples()
    assert f"{first.psnr_gap:.3f}" in text and "<img src=x" in text, "a name is shown letter by letter"


def test_a_dark_page_is_dark_and_its_figures_too(shown: "Page") -> None:
    def colours() -> tuple[str, str]:
        ink = shown.locator(".xtick text").first.evaluate("text => getComputedStyle(text).fill")
        return shown.evaluate("getComputedStyle(document.body).backgroundColor"), ink

    paper, ink = colours()
    shown.emulate_media(color_scheme="dark")
    shown.wait_for_timeout(1000)
    dark = colours()
    assert (paper, dark[0]) == ("rgb(255, 255, 255)", "rgb(20, 24, 29)") and dark[1] != ink


def test_print_has_the_picture_and_no_contents(shown: "Page") -> None:
    def visible() -> list[bool]:
        return [shown.locator(part).first.is_visible() for part in ("nav", ".chart", "figure img")]

    assert visible() == [True, True, False]
    shown.emulate_media(media="print")
    assert visible() == [False, False, True]
    assert shown.pdf(prefer_css_page_size=True).count(b"/Type /Page\n") == 1
