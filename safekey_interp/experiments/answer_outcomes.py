"""Outcomes of answers: refused, complied or malformed, as the judge reads them that fits the model.

The judge ``refusal`` reads the answers of any model (a refusal in part counts as one; an answer that it cannot read is
malformed: empty, or reasoning that never closes). Answers of the bundled toy model to requests of its own language are
scored by their act, and are malformed where they break the language's grammar.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safekey_interp.evaluation.judge_metrics import COMPLYING, REFUSING
from safekey_interp.evaluation.refusal_judge import NAME, VERSION, judge_refusal
from safekey_interp.interventions.response_steering import JudgedAnswer
from safekey_interp.models.organism import is_organism

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model


class RefusalOutcomes:
    """Outcomes by the judge ``refusal``."""

    def __call__(self, trace: Trace, response: str) -> JudgedAnswer:
        """Read one response."""
        label = judge_refusal(trace.prompt, response).label
        return JudgedAnswer(float(label in REFUSING), float(label in COMPLYING), float(label is None))

    def record(self) -> dict[str, Any]:
        """Its name and version."""
        return {"judge": f"the judge {NAME}", "version": VERSION}


class ActOutcomes(RefusalOutcomes):
    """Outcomes of the toy model's answers by their act; of prompts outside of its language by the judge ``refusal``."""

    def __call__(self, trace: Trace, response: str) -> JudgedAnswer:
        """Read one response."""
        from safekey_interp.models.organism.outcome import with_outcome

        if not {"verb", "noun"} <= set(trace.meta):
            return super().__call__(trace, response)
        read = with_outcome(trace, response).meta
        return JudgedAnswer(
            float(read["outcome"] == "refused"), float(read["outcome"] == "complied"), float(not read["well_formed"])
        )

    def record(self) -> dict[str, Any]:
        """Its name, and the version of the judge for other prompts."""
        return {"judge": "the act of the answer", "version": VERSION}


def judge_of_answers(model: Model) -> RefusalOutcomes:
    """The judge that fits a model."""
    return ActOutcomes() if is_organism(model.spec) else RefusalOutcomes()
