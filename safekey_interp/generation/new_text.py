"""New text of a response: what a judge reads when the first words of a response were given.

A response begins with its prefill (:attr:`~safekey_interp.generation.requests.Request.prefill`), which is not the
model's doing: a judge that reads it scores the experiment's own words. Prefills that pass the end of the reasoning put
words into the answer itself.
"""

from __future__ import annotations

from safekey_interp.data.reasoning_marks import FAMILIES
from safekey_interp.segmentation.reasoning_span import answer_span, reasoning_region


def new_text(response: str, prefill: str = "") -> str:
    """The text that the model wrote behind its prefill, as a response that a judge can read.

    Args:
        response: prefill and new text.
        prefill: what the response began with; empty for none.

    Returns:
        ``response`` without ``prefill``; behind the opening mark of the reasoning where the prefill leaves the
        reasoning open, so that a judge can still separate reasoning and answer (without it where the reasoning has no
        marks). The whole response where it does not
        begin with the prefill.
    """
    if not prefill or not response.startswith(prefill):
        return response
    region, answer = reasoning_region(response), answer_span(response)
    if answer is not None and (region.region == "answer" or region.span.end < len(prefill)):
        return response[max(answer.start, len(prefill)) :]  # nothing of the reasoning is new
    new = response[len(prefill) :]
    if answer_span(prefill) is not None:
        return new  # no mark before the new text: the template opened the reasoning, or the model does
    family = reasoning_region(prefill).family
    # None where the prefill reads as reasoning without marks.
    return next((marks.opening for marks in FAMILIES if marks.name == family), "") + new
