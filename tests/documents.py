"""Runs what README and docs show, as it is shown: the plugin of `make docs-test`.

The blocks of a page run one after the other, in a folder of their own that looks like a checkout, with the variables
and the folder that the block before left. `bash` is typed into bash; a `python` block that opens with `# name.py` is
written to that file, another is run after those before it on the page. Nothing is changed in the text; what makes the
commands quick stands in `smaller`: few images seen, narrow networks, drawn images for those under /data. A block
that needs what is not here has a line `<!--- skip: next "why" -->` above it, and is listed with its reason.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import numpy as np
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, SkipParser

from tests import smaller

ROOT = Path(__file__).parent.parent
CHECKOUT = ("Makefile", "cluster", "cluster.yaml")
"""What the commands find of a checkout in the folder where they are typed."""

SHELL = """
[ -f {state} ] && source {state} 2> /dev/null
cd "${{PWD_BEFORE:-.}}"
trap 'PWD_BEFORE=$PWD; declare -p | grep -v "^declare -[^ ]*r" > {state}' EXIT
set -eo pipefail
{block}
"""


class Page:
    """Where the blocks of one page run."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gahb-docs-"))
        self.mark = uuid.uuid4().hex
        self.typed = ""  # Python, so far
        self.work, programs = self.folder / "gahb", self.folder / "gahb/.venv/bin"
        programs.mkdir(parents=True)
        for name in CHECKOUT:
            (self.work / name).symlink_to(ROOT / name)
        for name in ("gahb-sweep", "gahb-analyze", "make", "ray"):
            program = programs / name
            program.write_text(f'#!/bin/bash\nexec {sys.executable} -m tests.smaller {name} "$@"\n')
            program.chmod(0o755)
        (programs / "activate").write_text(f"PATH={programs}:$PATH\n")
        paths = [os.environ.get("PYTHONPATH", ""), str(ROOT)]
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "GAHB_", "RAY_"))},
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": ":".join(filter(None, paths)),
            "HOME": str(self.folder),
            smaller.DATA: str(self.folder / "data"),
            smaller.MARK: self.mark,
        }
        draw_images(self.folder / "data")
        (self.work / "faces.zip").symlink_to(self.folder / "data/faces.zip")

    def bash(self, block: str) -> None:
        """Type a block.

        Raises:
            AssertionError: a command of it failed.
        """
        self._run(["bash", "-c", SHELL.format(state=self.folder / "state", block=block)])

    def python(self, block: str) -> None:
        """Write a block to the file that it names, or run it after those before it."""
        if name := re.match(r"# (\w+\.py)\n", block):
            (self.work / name[1]).write_text(block)
            return
        self._run([sys.executable, "-c", f"from tests.smaller import launches\nlaunches()\n{self.typed}{block}"])
        self.typed += block

    def close(self) -> None:
        """End what the page has started and not ended, and forget its folder."""
        smaller.end(self.mark)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, words: list[str]) -> None:
        with tempfile.TemporaryFile("w+") as told:
            code = subprocess.run(words, cwd=self.work, env=self.environment, stdout=told, stderr=told).returncode
            told.seek(0)
            assert code == 0, f"status {code}\n{told.read()[-4000:]}"


def draw_images(folder: Path) -> None:
    """What the documents take from /data: drawn images under the names of photographs."""
    from PIL import Image

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (2300, 5, 5), dtype=np.uint8)
    photos = folder / "photos"
    photos.mkdir(parents=True)
    (folder / "img_align_celeba").mkdir()
    for i, pixels in enumerate(coarse):
        Image.fromarray(pixels).resize((24, 24)).save(folder / f"img_align_celeba/{i + 1:06d}.png")
    for i, pixels in enumerate(coarse[:1500]):
        Image.fromarray(pixels).resize((32, 24)).save(photos / f"{i}.jpg")
    shutil.make_archive(str(folder / "img_align_celeba"), "zip", folder, "img_align_celeba")
    shutil.copy(folder / "img_align_celeba.zip", folder / "faces.zip")
    np.save(folder / "faces.npy", coarse.repeat(4, axis=1).repeat(4, axis=2))


def _page(example: Example) -> Page:
    page: Page = example.document.namespace["page"]
    return page


def _bash(example: Example) -> None:
    _page(example).bash(str(example.parsed))


def _python(example: Example) -> None:
    _page(example).python(str(example.parsed))


def _open(namespace: dict[str, object]) -> None:
    namespace["page"] = Page()


def _close(namespace: dict[str, object]) -> None:
    page = namespace["page"]
    assert isinstance(page, Page)
    page.close()


pytest_collect_file = Sybil(
    parsers=[CodeBlockParser("bash", _bash), CodeBlockParser("python", _python), SkipParser()],
    path=str(ROOT),
    pattern="*.md",
    setup=_open,
    teardown=_close,
).pytest()
