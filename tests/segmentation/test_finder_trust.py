"""Counts of what a finder read, and the first line of a summary that is made of them."""

from __future__ import annotations

import statistics
from typing import Any

from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.reporting.findings.summary_lines import cut, cut_of, trust
from safekey_interp.segmentation.finder_trust import FinderTrust
from safekey_interp.segmentation.segmenter import segment

RESPONSE = "<think>\nOkay, the user wants a poem. Hmm, that is fine. I write it.\n</think>\nRoses."


def counted(*traces: Trace) -> dict[str, Any]:
    trust = FinderTrust()
    for trace in traces:
        trust.add(trace, segment(trace))
    return trust.record()


def trace(number: int, response: str = RESPONSE, **about: Any) -> Trace:
    return Trace(trace_id=f"t{number}", prompt="Write a poem.", response=response, **about)


def test_what_was_read_and_how_surely_is_counted() -> None:
    read = segment(trace(0))
    assert read.key_sentence is not None
    given = {"key_sentence": read.key_sentence}
    wrong = {"key_sentence": CharSpan(0, 5)}
    traces = [trace(0, given=given), trace(1, given=wrong), trace(2), trace(3, response="")]
    record = counted(*traces)
    assert (record["n"], record["n_read"]) == (4, 3)
    assert (record["n_annotated"], record["n_as_annotated"]) == (2, 1)
    confidences = [segment(one).confidence for one in traces[:3]]
    assert record["median_confidence"] == round(statistics.median_low(confidences), 2)
    assert (record["n_cut"], record["n_cut_known"]) == (0, 0), "nobody knows"
    assert counted(trace(0, response=""))["median_confidence"] is None


def test_responses_that_were_cut_are_counted_and_said_by_model() -> None:
    record = counted(*[trace(number, meta={"cut": number < 2}) for number in range(8)], trace(8))
    assert cut_of(record, "a") == ("a", 2, 8)
    few = cut([("a", 2, 8), ("b", 0, 8)])
    assert "2 of 8 responses of a" in few
    assert "of b" not in few
    assert "--max-new-tokens" not in few
    assert "--max-new-tokens" in cut([("a", 7, 8)]), "the limit decides what is seen"
    assert cut([("a", 0, 8)]) == cut([cut_of(None)]) == ""


def test_little_trust_is_said_with_its_remedy() -> None:
    record = counted(*map(trace, range(8)))
    assert "8 of 8 traces read by finder rules (100%), 7 measured" in trust(record, "rules", 7)
    assert "--finder llm" not in trust(record, "rules", 8)
    for worse in ({"n_read": 3}, {"median_confidence": 0.3}, {"n_annotated": 8, "n_as_annotated": 2}):
        assert "--finder llm" in trust(record | worse, "rules", 8)
        assert "--finder llm" not in trust(record | worse, "llm", 8), "it is the remedy"
    assert "en 6, zh 2" in trust(record | {"languages": {"en": 6, "zh": 2}}, "rules", 8)
    assert trust(None, "rules", 0) == trust(FinderTrust().record(), "rules", 0) == ""


def test_languages_that_are_not_read_are_named_with_the_remedy() -> None:
    said = "El usuario quiere saber cómo hacer un pastel para su familia. Esto es seguro. Voy a ayudar."
    spanish = f"<think>\n{said}\n</think>\nAquí."
    record = counted(trace(0), trace(1, response=spanish))
    assert (record["n_read"], record["unread"]) == (1, {"Spanish": 1})
    assert "1 of 2 traces are not read, since they are in Spanish" in trust(record, "rules", 2)
    assert "--finder llm" in trust(record, "rules", 2)
