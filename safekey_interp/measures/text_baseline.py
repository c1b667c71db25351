"""Text baseline of probes: TF-IDF of a span's words under the same folds and the same estimators as the states.

A probe that beats this has read more than word choice. Words and pairs of words that occur in at least two training
texts; each character of a script written without spaces counts as a word. Vocabulary and document frequencies come
from the training fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from safekey_interp.measures.linear_probes import FoldSpace, centre_gram, gram_space

if TYPE_CHECKING:
    from safekey_interp.data.trace import CharSpan, Trace
    from safekey_interp.segmentation.segmenter import Segmentation

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+"

_MIN_TEXTS = 2  # training texts that a word must occur in; a word of one text ties its label to nothing else


def count_words(texts: Sequence[str]) -> Any:
    """Sparse (n, vocabulary) counts of words and pairs of words; no columns when there is no word at all."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import CountVectorizer

    try:
        return CountVectorizer(ngram_range=(1, 2), token_pattern=_WORD).fit_transform(texts)
    except ValueError:  # scikit-learn's only word for an empty vocabulary
        return csr_matrix((len(texts), 0))


def text_space(counts: Any, train: Bool[np.ndarray, " n"], test: Bool[np.ndarray, " n"]) -> FoldSpace:
    """TF-IDF rows of both sides by their inner products; all alike when no word occurs in two training texts.

    Args:
        counts: from :func:`count_words`, for training and test texts alike: counting learns nothing.
        train: which rows are training texts; vocabulary and document frequencies come from these alone.
        test: which rows are test texts.
    """
    rows, others = _weighted(counts, train, test)
    if rows.shape[1] == 0:
        return gram_space(np.zeros((rows.shape[0],) * 2), np.zeros((others.shape[0], rows.shape[0])))
    return gram_space(*centre_gram((rows @ rows.T).toarray(), (others @ rows.T).toarray()))


def text_rows(counts: Any, train: Bool[np.ndarray, " n"], test: Bool[np.ndarray, " n"], *, dense: bool) -> FoldSpace:
    """As :func:`text_space`, the TF-IDF rows themselves, a column a word; sparse, or as dense arrays."""
    rows, others = _weighted(counts, train, test)
    return FoldSpace(*((each.toarray() for each in (rows, others)) if dense else (rows, others)), np.nan)


def _weighted(counts: Any, train: np.ndarray, test: np.ndarray) -> tuple[Any, Any]:
    """TF-IDF rows of both sides, of the words that occur in two training texts."""
    from sklearn.feature_extraction.text import TfidfTransformer

    common = np.flatnonzero(counts[train].getnnz(axis=0) >= _MIN_TEXTS)
    kept = counts[:, common]
    if len(common) == 0:
        return kept[train], kept[test]
    weighting = TfidfTransformer(sublinear_tf=True).fit(kept[train])
    return weighting.transform(kept[train]), weighting.transform(kept[test])


def span_texts(traces: Sequence[Trace], segmentations: Sequence[Segmentation]) -> dict[str, list[str | None]]:
    """What a reader has read at each position, of traces and where their spans lie; see :func:`texts_by_position`."""
    pairs = list(zip(traces, segmentations, strict=True))
    return texts_by_position(
        [trace.prompt for trace in traces],
        [_words(trace, segmentation.understanding) for trace, segmentation in pairs],
        [_words(trace, segmentation.key_sentence) for trace, segmentation in pairs],
    )


def texts_by_position(
    prompts: Sequence[str | None], understood: Sequence[str | None], keys: Sequence[str | None]
) -> dict[str, list[str | None]]:
    """What a reader has read at each position, in words: the baseline's input. None where a trace lacks the span.

    ``prompt`` and ``prompt_end``: the prompt; ``understanding`` and ``key_sentence``: that span; ``context``,
    ``prompt+understanding`` and ``decision``: the prompt and the understanding.
    """
    both = [None if words is None else f"{prompt}\n{words}" for prompt, words in zip(prompts, understood, strict=True)]
    # The decision stands before K; with no understanding it has read the prompt alone.
    decided = [text if text is not None else prompt for prompt, text in zip(prompts, both, strict=True)]
    return {
        **{position: list(prompts) for position in ("prompt", "prompt_end")},
        **{position: list(both) for position in ("context", "prompt+understanding")},
        "decision": decided,
        "understanding": list(understood),
        "key_sentence": list(keys),
    }


def _words(trace: Trace, span: CharSpan | None) -> str | None:
    return None if span is None else span.text(trace.response)
