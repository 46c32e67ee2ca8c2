"""One page that says what a sweep trained and what its analyses found, each beside what the paper found.

What applies to the sweep and has not been asked yet of its finished trials is computed first. What applies each
analysis knows itself (see `catalog`), with the settings by default; the analyses that a sweep states for its figures
(`ANALYSES` of its module) are asked in their place. The page holds its pictures inside, so it can be sent as one
file; as an artifact it opens in the MLflow UI. It shows these analyses, and of the others in the record the newest of
each kind and name.
"""

import inspect
from collections.abc import Iterable, Sequence

from gahb.cli import say
from gahb.errors import UserError, did_you_mean
from gahb.execution.analysis import (
    AnalysisContext,
    AnalysisResult,
    Question,
    Stated,
    log_result,
)
from gahb.registry import ANALYSES, SWEEPS
from gahb.tracking import lookup
from gahb.tracking.run import Run

from .page import described, page
from .scaling import trials_table
from .underway import trials_of


def run(context: AnalysisContext, *, sweep: str) -> AnalysisResult:
    """The result of `gahb-analyze report` for a sweep in the record."""
    trials = trials_of(context, sweep)
    runs = trials.finished
    stated = stated_by(runs[0].launched(sweep))
    asked = [(kind, question) for kind in ANALYSES for question in questions(kind, sweep, runs, stated)]
    known = lookup.analyses(context.record, sweep)
    refused: dict[str, str] = {}
    for kind, question in asked:
        if any(answers(analysis, kind, question) for analysis in known):
            continue
        try:
            result = ANALYSES[kind](context, **question.options)
            log_result(context, kind, result, sweep)
            say(result.name)
        except UserError as error:
            refused[f"{kind} of {', '.join(run.name for run in question.runs[:2])}"] = str(error)
    chosen = newest(lookup.analyses(context.record, sweep), asked)
    shown = [(analysis, context.record.artifacts(analysis.run_id)) for analysis in chosen]
    names = [analysis.name for analysis, _ in shown]
    return AnalysisResult(
        name=f"report of {sweep}",
        sweep=sweep,
        runs=runs,
        texts={"report.html": page(sweep, trials_table(context.record, runs), shown, refused, trials.lines)},
        data={"shown": names, "refused": refused, "unfinished": trials.rows},
        lines=[*names, *(f"not {name}: {reason}" for name, reason in refused.items()), *trials.lines],
    )


def stated_by(sweep: str) -> list[Stated]:
    """The analyses that a sweep states, as `gahb-sweep list` names it; none if it does not, or is not here.

    Raises:
        UserError: something else than `Stated`, an analysis that is not here, or an option that it has not.
    """
    found = list(getattr(SWEEPS.get(sweep), "ANALYSES", ()))
    for stated in found:
        what = f"the sweep {sweep!r} of {SWEEPS.origin(sweep)}: its ANALYSES"
        if not isinstance(stated, Stated):
            raise UserError(f"{what} are gahb.plugins.Stated, and {stated!r} is not")
        if stated.kind not in ANALYSES:
            raise UserError(f"{what} name the analysis {stated.kind!r}; {did_you_mean(stated.kind, ANALYSES)}")
        parameters = inspect.signature(ANALYSES[stated.kind]).parameters
        for option in stated.options.keys() - parameters.keys():
            raise UserError(f"{what}: {stated.kind} has no option {option!r}; {did_you_mean(option, parameters)}")
    return found


def questions(kind: str, sweep: str, runs: Sequence[Run], stated: Sequence[Stated]) -> list[Question]:
    """What is asked of a sweep's finished trials: what is stated of that kind of analysis, or else its defaults."""
    about_kind, found = described(kind), list[Question]()
    for own in stated:
        about = [run for run in runs if own.of.items() <= run.flat.items()]
        if own.kind == kind and about:
            asked = [Question({**q.options, **own.options}, q.runs) for q in about_kind.asks(sweep, about)]
            found += [_together(asked)] if own.together and asked else asked
    return found or (list(about_kind.asks(sweep, runs)) if about_kind.by_default else [])


def _together(asked: Sequence[Question]) -> Question:
    """One question of the runs of several, in the order of their names."""
    runs = sorted((run for question in asked for run in question.runs), key=lambda run: run.name)
    return Question({**asked[0].options, "runs": [run.run_id for run in runs]}, runs)


def answers(analysis: Run, kind: str, question: Question) -> bool:
    """Whether an analysis in the record is of that kind, was computed from the question's runs and has its settings."""
    if analysis.kind != kind or analysis.links != {run.run_id for run in question.runs}:
        return False
    parameters = inspect.signature(ANALYSES[kind]).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    options = {**defaults, **question.options}
    return all(analysis.params.get(key, str(defaults.get(key, o))) == str(o) for key, o in options.items())


def newest(analyses: Sequence[Run], asked: Sequence[tuple[str, Question]]) -> list[Run]:
    """Of analyses in the order of time, the last answer to each question, and of those that answer none the last of
    each kind and name, unless an answer has these or, for a pair, holds it; in the order of ANALYSES."""
    answer: dict[int, Run] = {}
    other: dict[tuple[str, str], Run] = {}
    for analysis in analyses:
        answered = [i for i, question in enumerate(asked) if answers(analysis, *question)]
        answer.update(dict.fromkeys(answered, analysis))
        if not answered:
            other[analysis.kind, analysis.name] = analysis
    taken = {(run.kind, run.name) for run in answer.values()}
    others = [run for key, run in other.items() if key not in taken and not _held(run, answer.values())]
    last = [*(answer[i] for i in sorted(answer)), *others]
    order = [*ANALYSES, *sorted({run.kind for run in last} - set(ANALYSES))]
    return sorted((run for run in last if run.kind != "report"), key=lambda run: order.index(run.kind))


def _held(analysis: Run, answers: Iterable[Run]) -> bool:
    """Whether it is of a pair that an answer has among others, with the same settings."""
    return analysis.kind == "pair" and any(
        run.kind == "pairs" and analysis.links <= run.links and analysis.params == run.params for run in answers
    )
