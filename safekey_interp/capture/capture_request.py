"""Request of a forward pass: attention of which spans to which, and states at which positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from safekey_interp.capture.places import HeadValues, Place
from safekey_interp.data.span_expressions import parse_span
from safekey_interp.errors import InputError

if TYPE_CHECKING:
    from safekey_interp.capture.feature_maps import FeatureMap

QUERY_SPANS = ("key_sentence", "decision", "understanding")
"""Spans whose rows of the attention pattern are read by default."""
KEY_SPANS = ("prompt", "understanding", "template", "first_token", "key_sentence")
"""Spans whose keys' attention is summed by default."""
FIRST_TOKEN = "first_token"
STATE_POSITIONS = (
    "prompt",
    "prompt_end",
    "understanding",
    "context",
    "prompt+understanding",
    "decision",
    "key_sentence",
)
"""Positions at which states are averaged by default; ``prompt_end`` and ``decision`` are single tokens."""


class SpanPairs(NamedTuple):
    """Spans between which attention is measured."""

    queries: tuple[str, ...] = QUERY_SPANS
    """Expressions of the tokens whose rows of the attention pattern are read."""
    keys: tuple[str, ...] = KEY_SPANS
    """Expressions of the tokens whose keys' attention is summed."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The keys, and the first token if it is none of them: its mass is taken off the rest."""
        return self.keys if FIRST_TOKEN in self.keys else (*self.keys, FIRST_TOKEN)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Indices of query and key of each pair in the tables: all; of the recipe for X, U and K, U to X alone."""
        return tuple(
            (q, k)
            for q, query in enumerate(self.queries)
            for k, key in enumerate(self.keys)
            if self != RECIPE or query != "understanding" or key == "prompt"
        )

    @property
    def names(self) -> list[tuple[str, str]]:
        """Query and key of each pair."""
        return [(self.queries[q], self.keys[k]) for q, k in self.pairs]


RECIPE = SpanPairs()
"""Key sentence, deciding token and understanding: the spans of the built-in question."""
_BUILT_IN = {*map(parse_span, (*QUERY_SPANS, *KEY_SPANS, *STATE_POSITIONS, "understanding_end", "start"))}


def span_pairs(queries: Sequence[str] | None, keys: Sequence[str] | None) -> SpanPairs:
    """Spans of a request, each once; the built-in ones where None.

    Raises:
        InputError: an expression that cannot be parsed, a string in place of a list, or no query.
    """
    chosen = SpanPairs(
        QUERY_SPANS if queries is None else expressions(queries, "queries"),
        KEY_SPANS if keys is None else expressions(keys, "keys"),
    )
    if not chosen.queries:
        raise InputError("queries: got none, expected a list of span expressions such as ['key_sentence']")
    return chosen


def expressions(given: Sequence[str], what: str) -> tuple[str, ...]:
    """Span expressions, each once, in their order; errors as for :func:`span_pairs`."""
    if isinstance(given, str):
        raise InputError(f"{what}: got the text {given!r}, expected a list such as [{given!r}]")
    for expression in given:
        parse_span(expression)
    return tuple(dict.fromkeys(given))


def reads_of(given: Sequence[str], queries: Sequence[str] = ()) -> tuple[str, ...]:
    """How far a trace is read, for :attr:`Encoding.reads`: to the last token of these expressions; none where all are
    built in, which end with the key sentence, so that any of them has the same forward pass.

    Args:
        given: all expressions.
        queries: those of them whose attention is read. Where one is the token before the key sentence, the key
            sentence's rows are read, too: they are its second reference (:mod:`.reference_rows`).
    """
    if all(parse_span(expression) in _BUILT_IN for expression in given):
        return ()
    decides = any(parse_span(query) == parse_span("decision") for query in queries)
    return tuple(dict.fromkeys((*given, *(["key_sentence"] if decides else []))))


@dataclass(frozen=True, kw_only=True)
class CaptureRequest:
    """What one forward pass measures."""

    attention: bool = True
    """Measure attention between spans."""
    states: bool = True
    """Average states over positions."""
    layers: tuple[int, ...] | None = None
    """Layers to read; all when None. The final norm is read when the last layer is."""
    positions: tuple[str, ...] = STATE_POSITIONS
    """Expressions of the positions whose states are averaged."""
    spans: SpanPairs = RECIPE
    """Spans between which attention is measured."""
    places: tuple[Place, ...] | None = None
    """Places whose states are read, heads one by one; of the layers ``resid_post``, and the final norm, when None."""
    head: HeadValues = "z"
    """Of heads, their values before the output projection, or what each adds to the stream."""
    features: FeatureMap | None = None
    """Features whose means over ``positions`` are read, too."""
    token_weights: bool = False
    """Also keep, per layer, head and query span, the mean weight of every token."""
    n_random: int = 20
    """Draws of each random key set."""
    seed: int = 0
    """Seed of the draws; each trace has its own stream, whatever batch it is in."""

    def __post_init__(self) -> None:
        if self.n_random < 1:
            raise InputError(f"n_random: got {self.n_random}, expected at least 1 draw")
        if self.seed < 0:
            raise InputError(f"seed: got {self.seed}, expected 0 or more")

    @property
    def reads(self) -> tuple[str, ...]:
        """How far a trace is read (:func:`reads_of`). Keys behind that are out of sight."""
        return reads_of(self._read, self.spans.queries if self.attention else ())

    @property
    def needs(self) -> tuple[str, ...]:
        """Expressions of which a trace must have one to be measured; none for the default ones, which ask for a key
        sentence, or for a prompt alone."""
        is_default = (
            self.spans if self.attention else RECIPE,
            self.positions if self.reads_positions else STATE_POSITIONS,
        )
        return () if is_default == (RECIPE, STATE_POSITIONS) else self._read

    @property
    def reads_positions(self) -> bool:
        """Whether anything is averaged over positions."""
        return self.states or self.features is not None

    @property
    def _read(self) -> tuple[str, ...]:
        """Expressions of the tokens whose rows or states are read."""
        rows, states = self.spans.queries if self.attention else (), self.positions if self.reads_positions else ()
        return tuple(dict.fromkeys((*rows, *states)))

    def reads_layer(self, layer: int) -> bool:
        """Whether this layer is asked for."""
        return self.layers is None or layer in self.layers

    def sites(self, n_layers: int) -> tuple[Place, ...]:
        """The places of the states that the request returns, in order."""
        if self.places is None:
            layers = range(n_layers) if self.layers is None else self.layers
            streams = tuple(Place(layer, "resid_post") for layer in layers)
            return (*streams, Place(n_layers, "ln_final")) if self.reads_layer(n_layers - 1) else streams
        return self.places


DEFAULT_REQUEST = CaptureRequest()
"""The built-in question in all layers."""
