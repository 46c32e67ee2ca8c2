"""The site of the documents, made by `make docs` with Sphinx: the Markdown pages of the repository as they are, and the
reference from docstrings. The repository is the source, so that the pages' links to each other and to files hold.

Formulas are written as MathML, which browsers draw by themselves: the site loads nothing.
"""

from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml

import gahb

project = "gahb"
version = release = gahb.__version__
html_title = f"gahb {version}"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "docs/*.rst", "benchmarks/*.md", "chaos/*.md", "notebooks/*.ipynb"]
exclude_patterns = [".*", "**/_build", "**/gahb-storage", "build"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # a test executes them

default_role = "literal"  # of `this` in docstrings
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"

html_theme = "furo"
html_show_copyright = False
html_additional_pages = {"index": "redirect.html"}
templates_path = ["templates"]
html_math_renderer = "mathml"

linkcheck_ignore = [r"http://127\.0\.0\.1", r"http://localhost"]


def _formula(translator: Any, node: nodes.Element) -> None:
    """Write a formula, a block or in a line."""
    block = isinstance(node, nodes.math_block)
    mathml = latex2mathml.tex2mathml(node.astext(), as_block=block)
    translator.body.append(f'<div class="math">{mathml}</div>' if block else mathml)
    raise nodes.SkipNode


def _as_it_stands(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Show what is indented in a docstring, formulas and examples, as it stands."""
    for i in range(len(lines) - 1, 1, -1):
        above = [line for line in lines[:i] if line.strip()][-1:]
        if lines[i].startswith("    ") and not lines[i - 1] and not above[0].startswith(" "):
            lines[i:i] = ["::", ""]


def setup(app: Any) -> None:
    """Have Sphinx use them."""
    app.add_html_math_renderer("mathml", (_formula, None), (_formula, None))
    app.connect("autodoc-process-docstring", _as_it_stands, priority=100)  # before napoleon
