"""Text baseline of probes: TF-IDF of a span's words under the same folds and the same estimators as the states.

A probe that beats this has read more than word choice. Words and pairs of words that occur in at least two training
texts; each character of a script written without spaces counts as a word. Vocabulary and document frequencies come
from the training fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from safekey_interp.data.span_expressions import parse_span
from safekey_interp.measures.linear_probes import FoldSpace, centre_gram, gram_space

if TYPE_CHECKING:
    from safekey_interp.data.trace import CharSpan, Trace
    from safekey_interp.segmentation.segmenter import Segmentation

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+"

_DECISION = parse_span("decision")
_READ_AT = {
    parse_span("prompt_end"): ("prompt",),
    **dict.fromkeys(map(parse_span, ("context", "understanding_end", "decision")), ("prompt", "understanding")),
}  # spans that were read at positions that are none
_OF_CHARACTERS = {"prompt", "understanding", "key_sentence"}  # spans whose words every trace's record has
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
    train_rows, test_rows = (each.toarray() if dense else each for each in _weighted(counts, train, test))
    return FoldSpace(train_rows, test_rows, np.nan)


def _weighted(counts: Any, train: np.ndarray, test: np.ndarray) -> tuple[Any, Any]:
    """TF-IDF rows of both sides, of the words that occur in two training texts."""
    from sklearn.feature_extraction.text import TfidfTransformer

    common = np.flatnonzero(counts[train].getnnz(axis=0) >= _MIN_TEXTS)
    kept = counts[:, common]
    if len(common) == 0:
        return kept[train], kept[test]
    weighting = TfidfTransformer(sublinear_tf=True).fit(kept[train])
    return weighting.transform(kept[train]), weighting.transform(kept[test])


def texts_at(
    positions: Sequence[str], traces: Sequence[Trace], segmentations: Sequence[Segmentation]
) -> dict[str, list[str | None]]:
    """What a reader has read at each position of each trace; see :func:`text_of`."""
    pairs = list(zip(traces, segmentations, strict=True))
    return {position: [text_of(*pair, position) for pair in pairs] for position in positions}


def text_of(trace: Trace, segmentation: Segmentation, position: str) -> str | None:
    """The words that a probe at a position competes with.

    Args:
        trace: the trace.
        segmentation: where its spans lie.
        position: a span, or several with ``+`` between them: their words. The last token of the prompt or of U, the
            one before K: what was read up to it.

    Returns:
        None where the trace lacks a span, or the position is another, whose words are those of its tokens
        (:func:`safekey_interp.capture.words_read.read_words`).

    Raises:
        InputError: an expression that cannot be parsed.
    """
    return text_read(position, words_of(trace, segmentation))


def words_of(trace: Trace, segmentation: Segmentation) -> dict[str, str | None]:
    """The words of each span by name: the prompt, what came with the data, and what the finder found."""
    found = {name: getattr(segmentation, name) for name in ("reasoning", "understanding", "key_sentence")}
    spans: dict[str, CharSpan | None] = {**trace.given, **found}
    words = {name: None if span is None else span.text(trace.response) for name, span in spans.items()}
    return words | {"prompt": trace.prompt}


def text_read(position: str, words: Mapping[str, str | None]) -> str | None:
    """As :func:`text_of`, from the words of each span."""
    names = _spans_read(position)
    if parse_span(position) == _DECISION and words.get("understanding") is None:
        names = ("prompt",)  # the decision stands before K; with no understanding it has read the prompt alone
    texts = [text for name in names if (text := words.get(name)) is not None]
    return "\n".join(texts) if texts and len(texts) == len(names) else None


def _spans_read(position: str) -> tuple[str, ...]:
    """Spans whose words were read at a position; none where that takes its tokens."""
    parsed = parse_span(position)
    return _READ_AT.get(parsed) or tuple(map(str, parsed.united))


def with_own_words(
    texts: Mapping[str, Sequence[str | None]], own: Mapping[str, Sequence[str | None]]
) -> dict[str, list[str | None]]:
    """Texts by position, with the words of the tokens at all that are not of prompt, U and K."""
    of_tokens = {name: words for name, words in own.items() if not set(_spans_read(name) or (None,)) <= _OF_CHARACTERS}
    return {name: list(words) for name, words in (dict(own) | dict(texts) | of_tokens).items()}
