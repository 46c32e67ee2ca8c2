"""What the parts of the program found, as sections of RESULTS.md."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import machine
from chaos.rounds import Round
from chaos.writers import Load

FOLDER = Path(__file__).parent
PARTS = {
    "rounds": "Rounds",
    "cut": "A host off the network",
    "writers": "Many writers",
}
"""Name → heading, in the order of RESULTS.md."""

HEAD = (
    "| round | seed | failures and when (s) | launches (needed) | trials lost | metrics doubled | metrics with gaps "
    "| unequal weights | seconds | against undisturbed |\n|---|---|---|---|---|---|---|---|---|---|\n"
)


def of_rounds(rounds: Sequence[Round]) -> str:
    """The rounds as a table in markdown; round 0 is the undisturbed one."""
    usual = next((r.seconds for r in rounds if r.number == 0), None)
    return HEAD + "".join(_row(r, usual) for r in rounds)


def _row(r: Round, usual: float | None) -> str:
    c = r.comparison
    ratio = f"{r.seconds / usual:.2f}" if usual else "–"
    return (
        f"| {r.number} | {r.seed} | {', '.join(r.injected) or 'none'} | {r.launches} ({r.needed}) | {c.lost} "
        f"| {c.doubled} | {c.gaps} | {c.unequal} | {r.seconds:.0f} | {ratio} |\n"
    )


def of_load(load: Load) -> str:
    """What many writers did, in a line."""
    written = load.writers * load.evaluations * load.keys
    return (
        f"{load.writers} processes at once, each {load.evaluations} evaluations of {load.keys} metrics: "
        f"{written} metrics in {load.seconds:.1f} s, {load.metrics_per_second:.0f} a second; "
        f"{load.lost} lost, {load.doubled} doubled\n"
    )


def keep(part: str, text: str) -> None:
    """Keep a part's section and write RESULTS.md from all that are there."""
    results = FOLDER / "results"
    results.mkdir(exist_ok=True)
    (results / f"{part}.md").write_text(f"## {PARTS[part]}\n\n{machine()}\n\n{text}")
    found = [file.read_text() for name in PARTS if (file := results / f"{name}.md").exists()]
    (FOLDER / "RESULTS.md").write_text("# Failures\n\nWritten by `make chaos`.\n\n" + "\n".join(found))
