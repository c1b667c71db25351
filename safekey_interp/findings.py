"""What does a run say, in words? Each sentence with its n, its interval, and what it was held against.

Four questions, in the order a reader asks them: where does the model decide (``where``), what does it look at there
(``what``), what did it already know (``knew``), and which of these would also be true by chance (``chance``). Inside a question
the strongest comes first. A layer that was picked because it is the largest is named so, and is judged by a test that allows
for the picking, or by how many layers agree.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from safekey_interp.stats import wilson

if TYPE_CHECKING:
    from safekey_interp.runs import Run

_NAMES = {"prompt": "the prompt X", "understanding": "the understanding U"}
_PLACES = {
    "prompt": "over the prompt",
    "prompt_end": "at the prompt's last token",
    "understanding": "over the understanding",
    "context": "over everything up to the end of the understanding",
    "prompt+understanding": "over prompt and understanding",
    "decision": "at the token before the key sentence",
}
_CLEAR = 0.05


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One sentence about the data."""

    question: Literal["where", "what", "knew", "chance"]
    """What it answers."""
    text: str
    """The sentence."""
    value: float | None = None
    """The number that it rests on."""
    low: float | None = None
    """Lower end of its 95 % interval."""
    high: float | None = None
    """Upper end."""
    n: int = 0
    """Traces behind it."""
    control: str = ""
    """What it was held against."""
    strength: float = 0.0
    """Order inside a question: how far from its control, on a log or probability scale."""


def find(run: Run) -> dict[str, Any]:
    """What a run's tables say: ``headline``, ``findings``, ``left_out``."""
    traces = run.traces
    if traces is None:
        return {"headline": "", "findings": [], "left_out": []}
    known, chance = _what_it_knew(run.separability)
    findings = [*_where(traces), *_what(run), *known, *chance]
    findings.sort(key=lambda f: (("where", "what", "knew", "chance").index(f.question), -f.strength))
    return {
        "headline": _headline(traces, findings),
        "findings": [asdict(f) for f in findings],
        "left_out": _left_out(traces, run.manifest),
    }


def _where(traces: pd.DataFrame) -> list[Finding]:
    decided = traces[traces["key_sentence"].notna() & (traces["status"] == "measured")]
    if decided.empty:
        return []
    found = []
    how = "none: this is the finder's reading of the wording; `segment --agreement` measures it against people"
    for aha, what in (("safe", "turns safe"), ("unsafe", "goes ahead")):
        k, n = int((decided["aha"] == aha).sum()), len(decided)
        interval = wilson(k, n)
        text = f"The key sentence {what} in {k:,} of {n:,} traces ({_percent(k / n, *interval)})."
        found.append(
            Finding(question="where", text=text, value=k / n, low=interval.low, high=interval.high, n=n, control=how, strength=k / n)
        )
    dormant = decided[(decided["aha"] == "unsafe") & decided["hint"].notna() & (decided["label"] != "benign")]
    if len(dormant) >= 5:
        k, n = int(dormant["hint"].sum()), len(dormant)
        interval = wilson(k, n)
        text = (
            f"Where it goes ahead, the understanding had already named the harm in {k:,} of {n:,} traces "
            f"({_percent(k / n, *interval)}): the dormant signal."
        )
        found.append(
            Finding(question="where", text=text, value=k / n, low=interval.low, high=interval.high, n=n, control=how, strength=0.0)
        )
    return found


def _what(run: Run) -> list[Finding]:
    table = run.attention_by_layer
    if table is None or table.empty:
        return []
    rows = table[(table["subset"] == "all") & (table["from_span"] == "key_sentence")]
    found = []
    last = rows["layer"].max()
    paper = rows[(rows["layer"] == last) & rows["measure"].isin(["mass", "uniform_mass"])].set_index(["to_span", "measure"])
    if {("prompt", "mass"), ("understanding", "mass")} <= set(paper.index):
        x, u = paper.loc[("prompt", "mass")], paper.loc[("understanding", "mass")]
        even_x, even_u = (paper.loc[(span, "uniform_mass"), "value"] for span in ("prompt", "understanding"))
        more = "more" if u["value"] > x["value"] else "less"
        text = (
            f"In the last layer ({last}) the key sentence gives {u['value']:.3f} [{u['low']:.3f}, {u['high']:.3f}] of its attention to "
            f"U and {x['value']:.3f} [{x['low']:.3f}, {x['high']:.3f}] to X: {more} to U (the paper's measure, mean over heads)."
        )
        found.append(
            Finding(
                question="what",
                text=text,
                value=float(u["value"]),
                low=float(u["low"]),
                high=float(u["high"]),
                n=int(u["n"]),
                control=f"even attention would give {even_u:.3f} to U and {even_x:.3f} to X",
                strength=abs(float(np.log(u["value"] / x["value"]))) if min(u["value"], x["value"]) > 0 else 0.0,
            )
        )
    for span in ("understanding", "prompt"):
        ratio = rows[(rows["to_span"] == span) & (rows["measure"] == "lift_over_matched") & np.isfinite(rows["value"])]
        if ratio.empty:
            continue
        above, below = int((ratio["low"] > 1).sum()), int((ratio["high"] < 1).sum())
        peak = ratio.loc[np.log(ratio["value"].clip(lower=1e-9)).abs().idxmax()]
        text = (
            f"Against keys at like distances, the key sentence looks more at {_NAMES[span]} in {above} of {len(ratio)} layers and less "
            f"in {below}; most apart at layer {peak['layer']}, {peak['value']:.2f} times [{peak['low']:.2f}, {peak['high']:.2f}]."
        )
        found.append(
            Finding(
                question="what",
                text=text,
                value=float(peak["value"]),
                low=float(peak["low"]),
                high=float(peak["high"]),
                n=int(peak["n"]),
                control=f"random key sets at like distances; layer picked among {len(ratio)}, so count layers rather than trust the peak",
                strength=abs(above - below) / len(ratio) * abs(float(np.log(max(peak["value"], 1e-9)))),
            )
        )
    return found


def _what_it_knew(table: pd.DataFrame | None) -> tuple[list[Finding], list[Finding]]:
    if table is None or table.empty:
        return [], []
    knew, chance = [], []
    before = table[~table["after_the_fact"].astype(bool)]
    classes = "unsafe from safe outcomes" if (table["label_by"] == "aha").any() else "harmful from benign"
    for position in before["position"].unique():
        rows = before[before["position"] == position]
        probes = rows[(rows["method"] == "logistic") & rows["auroc"].notna()]
        if probes.empty:
            continue
        best = probes.loc[probes["auroc"].idxmax()]
        words = rows[(rows["method"] == "text_tfidf") & rows["auroc"].notna()]
        p = best.get("p_value_over_layers", np.nan)
        where = _PLACES.get(position, f"at {position}")
        stands = pd.notna(p) and p <= _CLEAR
        text = (
            f"{'' if stands else 'Not shown: '}{where[0].upper() if stands else where[0]}{where[1:]} a linear probe tells {classes} with "
            f"AUROC {best['auroc']:.2f} [{best['auroc_low']:.2f}, {best['auroc_high']:.2f}] at layer {best['layer']}, the best of "
            f"{len(probes)}"
        )
        baseline = ""
        if not words.empty:
            word = words.iloc[0]
            verdict = _beyond_words(best, word)
            text += f"; the words alone reach {word['auroc']:.2f} [{word['auroc_low']:.2f}, {word['auroc_high']:.2f}]"
            baseline = f"; words alone {word['auroc']:.2f}"
            chance.append(
                Finding(
                    question="chance",
                    text=f"{where[0].upper()}{where[1:]}, {verdict}.",
                    value=float(best["auroc"] - word["auroc"]),
                    n=int(best["n"]),
                    control="TF-IDF of the same words in the same folds, beside the best layer, which was picked",
                    strength=float(best["auroc"] - word["auroc"]),
                )
            )
        control = f"shuffled labels {best['null_auroc_low']:.2f} to {best['null_auroc_high']:.2f}; p over layers {p:.3g}{baseline}"
        knew.append(
            Finding(
                question="knew",
                text=f"{text}.",
                value=float(best["auroc"]),
                low=float(best["auroc_low"]),
                high=float(best["auroc_high"]),
                n=int(best["n"]),
                control=control,
                strength=abs(float(best["auroc"]) - 0.5),
            )
        )
    return knew, chance


def _beyond_words(probe: pd.Series, words: pd.Series) -> str:
    if probe["auroc_low"] > words["auroc_high"]:
        return "the states tell more than the words do (the intervals do not meet)"
    if probe["auroc"] <= words["auroc"]:
        return "the states tell no more than the words do"
    return "whether the states tell more than the words is open (the intervals meet)"


def _headline(traces: pd.DataFrame, findings: list[Finding]) -> str:
    measured = int((traces["status"] == "measured").sum())
    parts = [f"{measured:,} of {len(traces):,} traces measured."]
    for question in ("where", "what", "knew"):
        first = next((f for f in findings if f.question == question), None)
        if first is not None:
            parts.append(first.text)
    return " ".join(parts)


def _left_out(traces: pd.DataFrame, manifest: dict[str, Any] | Any) -> list[dict[str, Any]]:
    gone = traces[traces["status"] == "left out"]
    rows = [
        {"what": _few([str(name) for name in part["trace_id"]]), "why": str(reason), "n": len(part)}
        for reason, part in gone.groupby(gone["left_out"].map(_kind), sort=False)
    ]
    rows += list(manifest.get("separability_left_out") or [])
    without = manifest.get("layers_without_pattern") or []
    if without:
        layers = ", ".join(map(str, without))
        rows.append({"what": f"attention of layers {layers}", "why": "n/a: linear attention has no pattern", "n": len(without)})
    straddling = int((traces["n_straddling"].fillna(0) > 0).sum())
    if straddling:
        why = "tokens straddle two spans and count for the span of their first character that is not white space"
        rows.append({"what": "nothing, but noted", "why": why, "n": straddling})
    return rows


def _kind(reason: Any) -> str:
    """The reason without its numbers, so that like reasons count together."""
    text = str(reason)
    return text.split(", past ")[0].rsplit(" ends at token ", 1)[0] + " ends past the longest length" if ", past " in text else text


def _few(names: list[str], shown: int = 3) -> str:
    listed = ", ".join(names[:shown])
    noun = "trace" if len(names) == 1 else "traces"
    return f"{noun} {listed}{' …' if len(names) > shown else ''}"


def _percent(rate: float, low: float, high: float) -> str:
    return f"{rate:.0%} [{low:.0%}, {high:.0%}]"
