"""Judgements of answers to benchmark suites by the judges that the suites' authors use.

The judge ``refusal`` reads every answer; the answers to a suite's prompts also go to the suite's own judge, where there
is one: StrongREJECT's rubric through an endpoint, and a guard model for those suites that are judged by a classifier.
Both keep their judgements in the cache folder: nothing is asked twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safekey_interp.data.suites import SUITES, SuiteJudge, suites_of
from safekey_interp.errors import InputError, ModelError
from safekey_interp.evaluation.guard_model import VERSION as GUARD_VERSION
from safekey_interp.evaluation.guard_model import judge_by_guard
from safekey_interp.evaluation.judgement import Judgement
from safekey_interp.evaluation.rubric_judge import Unanswered, judge_by_rubric
from safekey_interp.experiments.compare_models import ProbedModel
from safekey_interp.models.checkpoints import check_reachable
from safekey_interp.runs.processes import RESUMES
from safekey_interp.runs.storage import cache_folder
from safekey_interp.segmentation.answer_cache import AnswerCache, content_key

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.data.trace_reader import TraceSource
    from safekey_interp.endpoint import Endpoint
    from safekey_interp.models.model import Model
    from safekey_interp.progress import Progress

SUCCESSFUL = ("answered", "unsafe")
"""Labels of the rubric and of a guard that make an attack succeed."""
_HOW = {"rubric": "--rubric, and an endpoint in SAFEKEY_LLM_BASE_URL", "guard": "--guard MODEL"}
_AT_ONCE = 64
"""Answers that a guard judges before they are kept."""

Opinions = Mapping[str, Judgement]
"""By trace id."""


@dataclass(frozen=True, kw_only=True)
class SuiteJudges:
    """The judges that can be asked."""

    rubric: Endpoint | None = None
    """Who is asked with StrongREJECT's rubric."""
    guard: Model | str | None = None
    """A guard model, or what ``load`` reads."""
    guard_template: str | None = None
    """The guard's own text, for one without a chat template (:mod:`safekey_interp.evaluation.guard_model`)."""

    def __post_init__(self) -> None:
        if self.guard_template is not None and self.guard is None:
            raise InputError("guard_template: given without a guard; name the guard, too")

    def has(self, judge: SuiteJudge) -> bool:
        """Whether this judge can be asked; ``refusal`` always is."""
        return judge == "refusal" or (self.rubric if judge == "rubric" else self.guard) is not None

    def check(self, load_options: Mapping[str, Any]) -> None:
        """Refuse a guard that cannot be loaded, before the models have answered.

        Raises:
            ModelError: nothing of that name can be read.
        """
        if isinstance(self.guard, str):
            check_reachable(self.guard, dict(load_options))

    def record(self) -> dict[str, Any]:
        """What tells these judges from others: names and addresses, no keys."""
        guard = self.guard if self.guard is None or isinstance(self.guard, str) else self.guard.spec
        asked = None if self.rubric is None else [self.rubric.address, self.rubric.model, dict(self.rubric.options)]
        return {"rubric": asked, "guard": guard, "guard_template": self.guard_template}


def suites_record(source: TraceSource, judges: SuiteJudges) -> list[dict[str, Any]]:
    """What ``run.json`` says of the suites that are read."""
    return [
        {
            "name": suite.name,
            "title": suite.title,
            "file": file.name,
            "judge": suite.judge,
            "asked": judges.has(suite.judge),
            "citation": suite.citation,
        }
        for suite, file in suites_of(source)
    ]


def opinions(
    done: Sequence[ProbedModel], judges: SuiteJudges, *, load_options: Mapping[str, Any], progress: Progress
) -> Mapping[str, Opinions]:
    """The judgements of each model's answers by the suites' own judges, by the model's name.

    Args:
        done: the models, with their answers.
        judges: those that can be asked; the others' suites have none.
        load_options: further arguments of ``load`` for a guard given by name.
        progress: shows how far this is.

    Raises:
        ModelError: the endpoint does not answer at all, or the guard cannot be loaded.
        InputError: a guard without a chat template, and no ``guard_template``.
    """
    asked: dict[str, list[tuple[str, Trace]]] = {"rubric": [], "guard": []}
    for one in done:
        for trace in one.traces.values():
            suite = SUITES.get(trace.source or "")
            if suite is not None and suite.judge != "refusal" and judges.has(suite.judge):
                asked[suite.judge].append((one.name, trace))
    judgements: dict[str, dict[str, Judgement]] = {one.name: {} for one in done}
    for judge, cases in asked.items():
        if not cases:
            continue
        progress.stage(f"{judge}: judging", len(cases))
        pairs = [(trace.prompt, trace.response) for _, trace in cases]
        if judge == "rubric":
            answers = judge_by_rubric(pairs, rubric="strongreject", endpoint=judges.rubric, on_case=progress.advance)
        else:
            answers = _by_guard(pairs, judges, load_options, progress)
        judged = list(answers)
        if all(isinstance(judgement, Unanswered) for judgement in judged):
            raise ModelError(f"{judge}: {judged[0].reason}; once it answers, {RESUMES}")
        for (name, trace), judgement in zip(cases, judged, strict=True):
            judgements[name][trace.trace_id] = judgement
    return judgements


def not_asked(suites: Sequence[Mapping[str, Any]], traces: Sequence[Trace]) -> list[dict[str, Any]]:
    """Entries of ``left_out`` for suites whose own judge was not asked."""
    return [
        {
            "what": f"{suite['title']}'s own judge ({suite['judge']})",
            "why": f"not asked, so only the judge refusal speaks; give {_HOW[suite['judge']]}",
            "n": sum(trace.source == suite["name"] for trace in traces),
        }
        for suite in {one["name"]: one for one in suites if not one["asked"]}.values()
    ]


def _by_guard(
    cases: Sequence[tuple[str, str]], judges: SuiteJudges, load_options: Mapping[str, Any], progress: Progress
) -> Iterator[Judgement]:
    from safekey_interp.models.model import load

    guard = judges.guard
    model = load(guard, **load_options) if isinstance(guard, str) else guard
    assert model is not None
    known, weights = AnswerCache(cache_folder() / "judge"), model.record().get("weights_sha256")
    for begin in range(0, len(cases), _AT_ONCE):
        part = cases[begin : begin + _AT_ONCE]
        keys = [content_key("guard", GUARD_VERSION, weights, judges.guard_template, *case) for case in part]
        judged = {number: kept for number, key in enumerate(keys) if (kept := _read(known.get(key) or {})) is not None}
        missing = [number for number in range(len(part)) if number not in judged]
        fresh = judge_by_guard(model, [part[number] for number in missing], template=judges.guard_template)
        for number, judgement in zip(missing, fresh, strict=True):
            judged[number] = judgement
            known.put(keys[number], {"label": judgement.label, "reason": judgement.reason, "scores": judgement.scores})
        for number in range(len(part)):
            progress.advance(1)
            yield judged[number]


def _read(saved: Mapping[str, Any]) -> Judgement | None:
    """A judgement that was kept; None for what cannot be one."""
    label, reason, scores = (saved.get(name) for name in ("label", "reason", "scores"))
    if not (label is None or isinstance(label, str)) or not isinstance(reason, str) or not isinstance(scores, Mapping):
        return None
    numbers = {str(name): float("nan") if value is None else float(value) for name, value in scores.items()}
    return Judgement(label=label, reason=reason, scores=numbers, judge="guard", version=GUARD_VERSION)
