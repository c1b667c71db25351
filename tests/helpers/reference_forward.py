"""Reference forward pass that capture is checked against: full eager attention patterns and hidden states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from tiny_models import traces

from safekey_interp.capture.architecture import find_layout
from safekey_interp.capture.capture_request import KEY_SPANS, QUERY_SPANS
from safekey_interp.capture.places import Place
from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.models.encoding import Encoding
from safekey_interp.models.model import Model
from safekey_interp.segmentation.segmentation_record import Segmentation


def span_of(text: str, piece: str) -> CharSpan:
    """Where ``piece`` first lies in ``text``."""
    start = text.index(piece)
    return CharSpan(start, start + len(piece))


def segmentation(trace: Trace, understanding: str | None = None, key_sentence: str | None = None) -> Segmentation:
    """A segmentation by its words; without words that of the traces of ``tiny.py``."""
    response = trace.response
    if understanding is None and key_sentence is None and response:
        key_start = response.index("Hmm")
        key_end = response.index("home.", key_start) + len("home.")
        return by_hand(trace, CharSpan(response.index("Okay"), key_start - 1), CharSpan(key_start, key_end))
    u, k = (None if words is None else span_of(response, words) for words in (understanding, key_sentence))
    return by_hand(trace, u, k)


def by_hand(trace: Trace, understanding: CharSpan | None, key_sentence: CharSpan | None) -> Segmentation:
    """A segmentation by its spans."""
    return Segmentation(
        trace_id=trace.trace_id,
        response=trace.response,
        reasoning=CharSpan(0, len(trace.response)),
        region="reasoning",
        family="none",
        understanding=understanding,
        key_sentence=key_sentence,
        aha=None if key_sentence is None else "neutral",
        hint=None if understanding is None else False,
        confidence=1.0,
        reason="by hand",
        finder="hand",
    )


def with_given(trace: Trace, **changes: Any) -> Trace:
    """A trace of ``tiny.py`` that brings its own spans."""
    segmented = segmentation(trace)
    assert segmented.understanding is not None
    assert segmented.key_sentence is not None
    given = {"understanding": segmented.understanding, "key_sentence": segmented.key_sentence}
    return trace.with_(given=given, **changes)


def with_spans(n: int = 5) -> list[Trace]:
    """The traces of ``tiny.py``, each with its own spans."""
    return [with_given(trace) for trace in traces(n)]


def encodings(model: Model, of: list[Trace]) -> list[Encoding]:
    """Each trace of ``tiny.py`` as the model reads it."""
    return [model.encode(trace, segmentation(trace)) for trace in of]


class Forward(NamedTuple):
    """One trace alone, computed by transformers."""

    patterns: list[torch.Tensor]
    """Per layer (head, q_pos, k_pos)."""
    hidden: list[torch.Tensor]
    """transformers' ``hidden_states``: embeddings, each layer but the last, then after the final norm."""


def forward(model: Model, encoding: Encoding, *, attn: str | None = None, patterns: bool = True) -> Forward:
    """Run one trace alone up to its end, with the attention function ``attn`` or the model's own."""
    before = model.hf.config._attn_implementation
    if attn is not None:
        model.hf.set_attn_implementation(attn)
    try:
        output = model.hf(
            encoding.input_ids[None, : encoding.end],
            output_attentions=patterns,
            output_hidden_states=True,
            use_cache=False,
        )
    finally:
        model.hf.set_attn_implementation(before)
    return Forward([pattern[0] for pattern in output.attentions or ()], [hidden[0] for hidden in output.hidden_states])


def mass(pattern: torch.Tensor, encoding: Encoding, query_span: str, key_span: str) -> torch.Tensor:
    """Mean over the query span's rows of the sum over the key span: (head)."""
    rows = pattern[:, list(encoding.positions(query_span))]
    return rows[:, :, list(encoding.positions(key_span))].sum(-1).mean(-1)


def masses(patterns: list[torch.Tensor], encoding: Encoding) -> torch.Tensor:
    """(layer, head, query_span, key_span); NaN where the query span is absent."""
    return torch.stack(
        [
            torch.stack(
                [torch.stack([mass(pattern, encoding, q, k) for k in KEY_SPANS], -1) for q in QUERY_SPANS], dim=-2
            )
            for pattern in patterns
        ]
    )


def state(hidden: list[torch.Tensor], encoding: Encoding, site: Place, position: str) -> torch.Tensor:
    """Mean of transformers' hidden states over a position: (d_model). Not for the last ``resid_post``."""
    stream = hidden[site.layer + 1] if site.site == "resid_post" else hidden[-1]
    return stream[list(encoding.positions(position))].mean(0)


def checkable_sites(n_layers: int) -> list[Place]:
    """The sites that ``hidden_states`` holds: all but the last ``resid_post``, whose place the final norm takes."""
    return [*(Place(layer, "resid_post") for layer in range(n_layers - 1)), Place(n_layers, "ln_final")]


def hook_counts(hf: torch.nn.Module) -> dict[str, int]:
    """How many hooks hang anywhere in a model, by kind."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {kind: sum(len(getattr(module, kind)) for module in hf.modules()) for kind in kinds}


@contextmanager
def joined_masks(model: Model, hidden: torch.Tensor, layers: Sequence[int]) -> Iterator[None]:
    """The literal way: eager attention, whose layers are each handed their own mask with more taken away."""

    def take(_module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        least = torch.finfo(kwargs["attention_mask"].dtype).min
        mask = kwargs["attention_mask"].masked_fill(hidden, least)
        blind = (mask == least).all(-1, keepdim=True) & torch.eye(mask.shape[-1], dtype=torch.bool)
        return args, kwargs | {"attention_mask": mask.masked_fill(blind, 0.0)}

    before = model.hf.config._attn_implementation
    model.hf.set_attn_implementation("eager")
    blocks: Any = find_layout(model.hf).layers
    handles = [blocks[layer].self_attn.register_forward_pre_hook(take, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        model.hf.set_attn_implementation(before)
