"""The documents: links lead somewhere, generated pages are up to date, commands and folders exist."""

import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import yaml
from gahb_sweeps.catalog import SWEEPS

from docs import settings
from gahb.trial import Trial

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page
    for page in (*ROOT.glob("*.md"), *ROOT.glob("[!.]*/**/*.md"))
    if "gahb-storage" not in page.relative_to(ROOT).parts
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
README = (ROOT / "README.md").read_text()


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them: of two alike the second ends in -1."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def test_pages_are_found() -> None:
    names = {page.relative_to(ROOT).as_posix() for page in PAGES}
    assert names >= {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/settings.md", "chaos/RESULTS.md"}
    assert {link for page in PAGES for link in LINK.findall(prose(page))} >= {"docs/launch.svg", "cluster.md#security"}


def test_every_document_is_linked_from_the_readme() -> None:
    linked = {link.partition("#")[0] for link in LINK.findall(README)}
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked


def test_every_document_is_on_the_site() -> None:
    shown = re.findall(r"^```\{toctree\}\n(.*?)^```", (ROOT / "docs/index.md").read_text(), re.MULTILINE | re.DOTALL)
    listed = {Path(line.removesuffix(">")).name for text in shown for line in text.splitlines() if line[:1] != ":"}
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} - listed == {"index"}


def test_the_page_of_settings_is_what_the_code_says() -> None:
    code = "from docs.settings import page; import sys; sys.stdout.buffer.write(page().encode())"
    written = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    assert settings.PAGE.read_text() == written, "python -m docs writes it anew"


def test_the_page_has_every_key_with_its_type_and_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| .+ \|$", settings.PAGE.read_text(), re.MULTILINE)
    types = {key: kind for key, kind, _ in rows}
    of_sweeps = {
        key: type(value) for sweep in SWEEPS.values() for t in sweep.trials() for key, value in t.flat().items()
    }
    for key in of_sweeps.keys() - {"dataset", "architecture"}:
        assert types[key] == of_sweeps[key].__name__, key
    trial = Trial.of({"dataset": "disks", "resolution": 80, "n_train": 1})
    for key, _, default in rows:
        if key in {"seed", "n_test", "batch_size", "schedule", "precision"}:
            assert default == f"`{trial.flat()[key]}`", key
    assert ("blocks", "int", "`1`, `2`, `3`, `4` at 20, 40, 80, 160 pixels a side") in rows


def test_a_key_that_no_docstring_explains_is_refused() -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Dots:
        """Dots.

        Args:
            number: of dots, which
                may be 0.
        """

        number: int = 3
        colour: str = "black"

    assert settings.args(Dots) == {"number": "of dots, which may be 0."}
    with pytest.raises(KeyError, match="colour"):
        settings.keys_table(Dots)


def test_the_readme_names_every_command() -> None:
    for name, app in (("gahb-sweep", settings.sweep), ("gahb-analyze", settings.analyze)):
        assert set(settings.commands(app)) == set(
            re.findall(rf"^{name} ([a-z]+)(?= .* {{2,}}| {{2,}})", README, re.MULTILINE)
        )


def test_the_readme_maps_every_folder() -> None:
    named = set(re.findall(r"(?:^|\s)((?:\w+/)+)(?=\s)", README, re.MULTILINE))
    packages = {f"gahb/{init.parent.name}/" for init in ROOT.glob("gahb/*/__init__.py")}
    assert packages <= named
    for folder in named:
        assert (ROOT / folder).is_dir(), folder


def test_floors_are_those_of_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    floors = [re.sub(r"\bgahb[._]", "", layer) for layer in layers]
    assert "\n".join(["```", *floors, "```"]) in (ROOT / "CONTRIBUTING.md").read_text()


def test_hooks_and_make_lint_run_the_same() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"], "no hook is downloaded"
    entries = {hook["entry"].removesuffix(" --force-exclude") for hook in hooks[0]["hooks"]}
    lint = subprocess.run(
        ["make", "--no-print-directory", "-n", "-o", ".venv/installed", "lint"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert entries == {line.removesuffix(" .") for line in lint.stdout.splitlines()}
