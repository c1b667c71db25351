"""What does a run say, in words? Each sentence with its n, its interval, and what it was held against.

Four questions, in the order a reader asks them: where does the model decide (``where``), what does it look at there
(``what``), what did it already know (``knew``), and what would also be true by chance (``chance``). Inside a question
the strongest comes first.

A sentence claims no more than its numbers. A layer that was picked because it is the largest is named so: for attention
the number of layers that agree is what counts, and a probe must beat shuffled labels at their own best layer (p over
layers), at 0.05 shared among the positions (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from safekey_interp.claims import FEW, LEVEL, Finding, estimate, share

if TYPE_CHECKING:
    from safekey_interp.runs import Run

Table = Any
"""A data frame; pandas' stubs take each of its cells for a column."""
Row = Any
"""One of its rows."""

_SPANS = {"prompt": "the prompt X", "understanding": "the understanding U"}
_PLACES = {
    "prompt": "over the prompt",
    "prompt_end": "at the prompt's last token",
    "understanding": "over the understanding",
    "context": "over everything up to the end of the understanding",
    "prompt+understanding": "over prompt and understanding",
    "decision": "at the token before the key sentence",
}
_CLASSES = {"label": "harmful from benign prompts", "aha": "traces that go ahead from traces that turn safe"}
_AUROC = ("auroc", "auroc_low", "auroc_high")
_QUESTIONS = ("where", "what", "knew", "chance")


def find(run: Run) -> dict[str, Any]:
    """What a run's tables say: ``headline``, ``findings``, ``left_out``."""
    traces = run.traces
    if traces is None:
        return {"headline": "", "findings": [], "left_out": []}
    findings = [*_where(traces), *_what(run), *_what_it_knew(run.separability)]
    findings.sort(key=lambda finding: (_QUESTIONS.index(finding.question), -finding.strength))
    return {
        "headline": _headline(traces, findings),
        "findings": [asdict(finding) for finding in findings],
        "left_out": _left_out(traces, run.manifest),
    }


def _where(traces: Table) -> list[Finding]:
    decided = traces.loc[traces["key_sentence"].notna() & (traces["status"] == "measured")]
    if decided.empty:
        return []
    control = "none; it counts what the finder read in the words, which `segment --agreement` checks against people"
    n = len(decided)
    shares = {aha: share(decided["aha"] == aha, decided["group"]) for aha in ("safe", "unsafe")}
    counts = {aha: int((decided["aha"] == aha).sum()) for aha in ("safe", "unsafe", "neutral")}
    text = (
        f"The key sentence turns safe in {counts['safe']:,} of {n:,} traces, {shares['safe'].text('.0%')}; it goes "
        f"ahead in {counts['unsafe']:,}, {shares['unsafe'].text('.0%')}, and does neither in {counts['neutral']:,}."
    )
    found = [Finding(question="where", text=text, n=n, control=control, strength=1.0, **shares["safe"].fields())]
    # By the label and K: the finder's "unsafe" itself asks for harm in U or X, and would beg the question.
    ahead = decided.loc[(decided["label"] == "harmful") & (decided["aha"] != "safe") & decided["hint"].notna()]
    if len(ahead):
        named = ahead["hint"].astype(bool)
        named_share = share(named, ahead["group"])
        text = (
            f"Of {len(ahead):,} traces on harmful prompts that state an understanding and do not turn safe, the "
            f"understanding names the harm in {int(named.sum()):,}, {named_share.text('.0%')}."
        )
        found.append(Finding(question="where", text=text, n=len(ahead), control=control, **named_share.fields()))
    return found


def _what(run: Run) -> list[Finding]:
    table = run.attention_by_layer
    if table is None or table.empty:
        return []
    rows = table.loc[(table["subset"] == "all") & (table["from_span"] == "key_sentence") & np.isfinite(table["value"])]
    if rows.empty:
        return []
    found = [*_paper_measure(rows, run.manifest)]
    for span in _SPANS:
        ratios = rows.loc[(rows["to_span"] == span) & (rows["measure"] == "lift_over_matched")]
        if len(ratios):
            found.append(_beside_matched(ratios, span))
    return found


def _paper_measure(rows: Table, manifest: Mapping[str, Any]) -> list[Finding]:
    last = int(rows["layer"].max())
    at = rows.loc[rows["layer"] == last].set_index(["to_span", "measure"])
    if not {(span, measure) for span in _SPANS for measure in ("mass", "uniform_mass")} <= set(at.index):
        return []
    on_x, on_u = (estimate(at.loc[(span, "mass")]) for span in ("prompt", "understanding"))
    n_x, n_u = (int(at.loc[(span, "mass"), "n"]) for span in ("prompt", "understanding"))
    even_x, even_u = (float(at.loc[(span, "uniform_mass"), "value"]) for span in ("prompt", "understanding"))
    if not (on_x.is_sure and on_u.is_sure):
        verdict = f"fewer than {FEW} prompts, so this says nothing about others"
    elif on_u.low > on_x.high or on_x.low > on_u.high:
        verdict = f"more to {'U' if on_u.value > on_x.value else 'X'}"
    else:
        verdict = "the intervals overlap, so neither clearly gets more"
    is_last = last == (manifest.get("model") or {}).get("n_layers", 0) - 1
    where = f"In the last layer ({last})" if is_last else f"In layer {last}, the last that was measured,"
    text = (
        f"{where} the key sentence gives {on_u.text('.3f')} of its attention to U and {on_x.text('.3f')} to X, "
        f"mean over heads: {verdict}."
    )
    control = f"even attention would give {even_u:.3f} to U and {even_x:.3f} to X; this is the paper's measure"
    if n_x != n_u:
        control += f" ({n_u:,} traces have a U)"
    strength = abs(float(np.log(on_u.value / on_x.value))) if min(on_u.value, on_x.value) > 0 else 0.0
    return [Finding(question="what", text=text, n=n_x, control=control, strength=strength, **on_u.fields())]


def _beside_matched(ratios: Table, span: str) -> Finding:
    n_layers = len(ratios)
    enough = ratios["n_groups"] >= FEW
    above = int((enough & (ratios["low"] > 1)).sum())
    below = int((enough & (ratios["high"] < 1)).sum())
    distance = np.log(ratios["value"].clip(lower=1e-9)).abs()
    peak = ratios.loc[distance.idxmax()]
    number = estimate(peak)
    layers = f"{n_layers} layer{'s' if n_layers > 1 else ''}"
    text = (
        f"Distance aside, the key sentence attends more to {_SPANS[span]} than the understanding does to tokens as far "
        f"away in {above} of {layers}, less in {below}, undecided in {n_layers - above - below}; the ratio furthest "
        f"from 1 is {number.text('.2f')}, at layer {peak['layer']}."
    )
    picked = "; layer picked after the fact, so trust the count of layers more" if n_layers > 1 else ""
    return Finding(
        question="what",
        text=text,
        n=int(peak["n"]),
        control=f"what U's own tokens give at the same distances (ratio 1 = distance explains it){picked}",
        strength=abs(above - below) / n_layers * float(distance.max()),
        **number.fields(),
    )


def _what_it_knew(table: Table | None) -> list[Finding]:
    if table is None or table.empty:
        return []
    before = table.loc[~table["after_the_fact"].astype(bool) & table["auroc"].notna()]
    probes = before.loc[before["method"] == "logistic"]
    words = before.loc[before["method"] == "text_tfidf"].drop_duplicates("position").set_index("position")
    classes = _CLASSES["aha" if (table["label_by"] == "aha").any() else "label"]
    level = LEVEL / max(1, probes["position"].nunique())
    found: list[Finding] = []
    for position, rows in probes.groupby("position", sort=False):
        best = rows.loc[rows["auroc"].idxmax()]
        word = words.loc[position] if position in words.index else None
        shown = best["n_groups"] >= FEW and best["p_value_over_layers"] <= level  # NaN is never shown
        found.append(_probe(best, word, len(rows), classes=classes, level=level, shown=shown))
        if shown and word is not None:
            found.append(_beyond_words(best, word))
    if found and not any(finding.question == "knew" for finding in found):
        text = f"Nowhere before the key sentence is a linear probe shown to tell {classes}."
        control = f"shuffled labels, at their own best layer; {probes['position'].nunique()} positions"
        found.append(Finding(question="knew", text=text, n=int(probes["n"].max()), control=control))
    return found


def _probe(best: Row, word: Row | None, n_sites: int, *, classes: str, level: float, shown: bool) -> Finding:
    number = estimate(best, *_AUROC)
    verdict = f"tells {classes}" if shown else f"is not shown to tell {classes}"
    alone = "" if word is None else f"; the words alone reach {estimate(word, *_AUROC).text('.2f')}"
    return Finding(
        question="knew" if shown else "chance",
        text=f"{_place(best)}, a linear probe {verdict}: AUROC {number.text('.2f')} {_site(best, n_sites)}{alone}.",
        n=int(best["n"]),
        control=_shuffled(best, n_sites, level),
        strength=number.value - 0.5 if shown else -1.0,
        **number.fields(),
    )


def _beyond_words(best: Row, word: Row) -> Finding:
    states, words = (estimate(row, *_AUROC) for row in (best, word))
    if states.low > words.high:
        verdict = "the states tell more than the words they were read from"
    elif states.value <= words.value:
        verdict = "the states tell no more than the words they were read from"
    else:
        verdict = "the states do not clearly tell more than the words they were read from (the intervals overlap)"
    gain = states.value - words.value
    text = f"{_place(best)}, {verdict}: AUROC {states.text('.2f')} against {words.text('.2f')}."
    control = "TF-IDF of the same words in the same folds; the states' layer is the best of all, which favours them"
    return Finding(question="chance", text=text, value=gain, n=int(best["n"]), control=control, strength=gain)


def _place(row: Row) -> str:
    place = _PLACES.get(row["position"], f"at {row['position']}")
    return place[0].upper() + place[1:]


def _site(row: Row, n_sites: int) -> str:
    site = "after the final norm" if row["site"] == "ln_final" else f"at layer {row['layer']}"
    return f"{site}, the best of {n_sites}" if n_sites > 1 else site


def _shuffled(best: Row, n_sites: int, level: float) -> str:
    p = best["p_value_over_layers"]
    circular = "; the finder reads unsafe outcomes with a look at U and X" if best["label_by"] == "aha" else ""
    if np.isnan(p):
        return "none: too few prompts to shuffle labels"
    over = f" over {n_sites} layers" if n_sites > 1 else ""
    between = f"{best['null_auroc_low']:.2f} to {best['null_auroc_high']:.2f}"
    return f"shuffled labels give {between}; p = {p:.2g}{over}, shown from {level:.2g} down{circular}"


def _headline(traces: Table, findings: list[Finding]) -> str:
    measured = int((traces["status"] == "measured").sum())
    parts = [f"{measured:,} of {len(traces):,} traces measured."]
    for question in ("where", "what", "knew"):
        first = next((finding for finding in findings if finding.question == question), None)
        if first is not None:
            parts.append(first.text)
    return " ".join(parts)


def _left_out(traces: Table, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    gone = traces.loc[traces["status"] == "left out"]
    rows = [
        {"what": _few([str(name) for name in part["trace_id"]]), "why": str(reason), "n": len(part)}
        for reason, part in gone.groupby(gone["left_out"].map(_kind), sort=False)
    ]
    rows += list(manifest.get("separability_left_out") or [])
    without = manifest.get("layers_without_pattern") or []
    if without:
        layers = ", ".join(map(str, without))
        rows.append(
            {"what": f"attention of layers {layers}", "why": "n/a: they have no attention pattern", "n": len(without)}
        )
    straddling = int((traces["n_straddling"].fillna(0) > 0).sum())
    if straddling:
        why = "each token over two spans counts for that of its first character that is not white space"
        rows.append({"what": "nothing, in traces whose tokens straddle spans", "why": why, "n": straddling})
    return rows


def _kind(reason: Any) -> str:
    """The reason without its numbers, so that like reasons count together."""
    text = str(reason)
    if ", past " in text:
        return f"{text.split(', past ', maxsplit=1)[0].rsplit(' ends at token ', 1)[0]} ends past the longest length"
    return text


def _few(names: list[str], shown: int = 3) -> str:
    listed = ", ".join(names[:shown])
    noun = "trace" if len(names) == 1 else "traces"
    return f"{noun} {listed}{' …' if len(names) > shown else ''}"
