"""KL divergence by part of a response: the key sentence's first token against the others.

The first tokens of a reasoning are its template (``<think>``, "Okay, so"), on which two models hardly differ whatever
they would do. What alignment changes should show at K's first token, before which the position ``decision`` stands:

    contrast = KL at K's first token - mean KL of U's tokens and of those behind K        by trace, nats per token

A sentence may begin in many ways and continue in few, so that any sentence's first token has more KL than the mean of
tokens: ``sentence_starts``, the first tokens of the other sentences, are the sharper control.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from safekey_interp.errors import InputError
from safekey_interp.measures.intervals import mean_interval
from safekey_interp.segmentation.reasoning_span import answer_span
from safekey_interp.segmentation.segmenter import Segmentation
from safekey_interp.segmentation.sentence_splitter import iterate_sentences

PARTS = ("opening", "understanding", "decision", "key_sentence", "rest")
"""Of a response's tokens, in their order: before U (or before K, where there is no U), U's, K's first (which the
position ``decision`` predicts), K's others, and those behind K. White space between U and K belongs to U; without K,
everything behind U is ``rest``."""
_SUMMARISED = ("decision", "key_sentence", "understanding", "rest", "elsewhere", "sentence_starts")


class Parts(NamedTuple):
    """What each token of a response is."""

    part: list[str]
    """Of :data:`PARTS`."""
    starts_sentence: list[bool]
    """Whether it is the first token of a sentence of the reasoning or of the answer."""


def parts_of(ends: Sequence[int], segmentation: Segmentation) -> Parts:
    """The part of each token of a response.

    Args:
        ends: characters of the response behind each token, ascending.
        segmentation: where U and K lie in the response.
    """
    response, u, key = segmentation.response, segmentation.understanding, segmentation.key_sentence

    def holding(character: int) -> int:
        """The token that holds a character: the first that ends behind it."""
        return bisect_left(ends, character + 1)

    n = len(ends)
    begin = holding(u.start) if u else holding(key.start) if key else 0
    decides = holding(key.start) if key else holding(u.end) if u else 0
    behind = holding(key.end - 1) + 1 if key else decides
    part = ["opening"] * begin + ["understanding"] * (decides - begin)
    part += ["decision"] * bool(key) + ["key_sentence"] * (behind - decides - 1) + ["rest"] * (n - behind)
    spans = [(segmentation.reasoning.start, segmentation.reasoning.end)]
    answer = answer_span(response)
    if answer is not None and answer.start >= segmentation.reasoning.end:
        spans.append((answer.start, answer.end))
    sentences = (sentence for a, b in spans for sentence in iterate_sentences(response, a, b, len(response)))
    firsts = {holding(sentence.start) for sentence in sentences}
    return Parts(part[:n], [number in firsts for number in range(n)])


def kl_by_part(table: pd.DataFrame) -> pd.DataFrame:
    """Mean KL of each part of each trace's response, and what K's first token has beyond the others.

    Args:
        table: from :func:`~safekey_interp.generation.kl.measure_kl`.

    Returns:
        One row per trace with K: trace_id, group; in nats per token: decision (K's first token), key_sentence (K's
        other tokens), understanding, rest, elsewhere (understanding and rest together), sentence_starts (the first
        tokens of other sentences), contrast (decision - elsewhere), contrast_starts (decision - sentence_starts);
        n_elsewhere and n_starts (tokens). NaN where a trace has no such token.

    Raises:
        InputError: no trace has K.
    """
    at: Any = table[table["part"] == "decision"]
    if not len(at):
        raise InputError("kl: no response with a key sentence, expected some")
    out = at[["trace_id", "group", "kl"]].rename(columns={"kl": "decision"}).set_index("trace_id")

    def mean(rows: Any) -> Any:
        return rows.groupby("trace_id")["kl"].mean().reindex(out.index)

    elsewhere = table[table["part"].isin(["understanding", "rest"])]
    starts = table[table["starts_sentence"] & (table["part"] != "decision")]
    for name in ("key_sentence", "understanding", "rest"):
        out[name] = mean(table[table["part"] == name])
    out["elsewhere"], out["sentence_starts"] = mean(elsewhere), mean(starts)
    out["contrast"] = out["decision"] - out["elsewhere"]
    out["contrast_starts"] = out["decision"] - out["sentence_starts"]
    for name, rows in (("n_elsewhere", elsewhere), ("n_starts", starts)):
        out[name] = rows.groupby("trace_id").size().reindex(out.index, fill_value=0)
    return out.reset_index()


def summarise_kl_by_part(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over traces of the KL at K's first token, in K, elsewhere, and of their contrasts.

    Args:
        table: from :func:`~safekey_interp.generation.kl.measure_kl`.

    Returns:
        One row per column of :func:`kl_by_part` that is in nats: part, value (mean over traces), low, high (95 % over
        groups; NaN below ten), n (traces that have such tokens), n_groups.

    Raises:
        InputError: no trace has K.
    """
    by_trace = kl_by_part(table)
    rows = []
    for name in (*_SUMMARISED, "contrast", "contrast_starts"):
        defined: Any = by_trace.dropna(subset=[name])
        groups = defined["group"].tolist()
        row = {"part": name, "value": np.nan, "low": np.nan, "high": np.nan}
        if len(defined):
            row |= mean_interval(defined[[name]].to_numpy(float), groups).estimate()
        rows.append(row | {"n": len(defined), "n_groups": len(set(groups))})
    return pd.DataFrame(rows)
