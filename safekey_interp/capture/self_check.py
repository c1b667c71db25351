"""Self-check of the attention hook against the model's own eager attention.

Done once for each model, on a dozen tokens: the hook's mean rows against the weights that the model's own eager
function returns. An attention term that the hook does not know (a learned bias, say) shows here, before anything is
measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType
from weakref import WeakSet

import torch
from torch import Tensor, nn

from safekey_interp.capture.architecture import evaluating, find_layout
from safekey_interp.capture.attention_hook import KEYWORD
from safekey_interp.capture.batches import Batch
from safekey_interp.capture.capture_request import QUERY_SPANS, CaptureRequest
from safekey_interp.capture.recording import capture
from safekey_interp.data.trace import TokenSpan
from safekey_interp.errors import ModelError
from safekey_interp.models.encoding import SPANS, Encoding
from safekey_interp.models.model import Model

_LENGTH = 12
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
_COARSE = 3e-2
_HOOKED = "_output_capturing_hooks_installed"
_checked: WeakSet[Model] = WeakSet()


def check_attention(model: Model) -> None:
    """Compare the hook with the model's eager attention; done once for each model.

    Raises:
        ModelError: they differ, or the hook sees no layer.
    """
    if model in _checked:
        return
    encoding = _sample(model)
    batch = Batch.of([encoding])
    request = CaptureRequest(states=False, token_weights=True, n_random=1)
    name = type(model.hf).__name__
    with torch.inference_mode(), evaluating(model.hf):
        try:
            with capture(model, batch, request) as captured:
                model.hf(**batch.inputs(model.device))
        except TypeError as error:
            if KEYWORD not in str(error):
                raise
            raise ModelError(f"model {model.spec}: {name} hands no keyword arguments on to its attention") from error
        if not captured.attention:
            raise ModelError(
                f"model {model.spec}: no layer of {name} showed its attention; expected an architecture that "
                "goes through transformers' attention interface and hands keyword arguments on to its layers"
            )
        patterns = _eager_patterns(model, batch)
    if len(patterns) != len(captured.attention):
        raise ModelError(
            f"model {model.spec}: {name} returns {len(patterns)} attention patterns, where "
            f"{len(captured.attention)} layers were read, so that the one cannot be checked by the other"
        )
    tolerance = _TOLERANCE.get(model.dtype, _COARSE)
    for layer, pattern in zip(sorted(captured.attention), patterns, strict=True):
        if not bool(pattern.isfinite().all()):
            raise ModelError(
                f"model {model.spec}: the attention of layer {layer} is not finite; are its weights whole?"
            )
        if float(pattern.float().triu(diagonal=1).abs().max()) > tolerance:
            raise ModelError(
                f"model {model.spec}: layer {layer} of {name} attends to later tokens; expected a causal model"
            )
        weights = captured.attention[layer].token_weights
        assert weights is not None
        for f, span in enumerate(QUERY_SPANS):
            own = pattern[:, :, list(encoding.positions(span))].float().mean(dim=2)
            worst = float((own.cpu() - weights[:, :, f].cpu()).abs().max())
            if not worst <= tolerance:
                raise ModelError(
                    f"model {model.spec}: at layer {layer} the attention read differs by {worst:.2g} from what "
                    f"{name} computes itself; its attention has a term that cannot be read here"
                )
    _checked.add(model)


def _sample(model: Model) -> Encoding:
    generator = torch.Generator().manual_seed(0)
    top = min(model.config.vocab_size, 10_000)
    spans = dict.fromkeys(SPANS) | {
        "understanding": TokenSpan(3, 7),
        "decision": TokenSpan(6, 7),
        "key_sentence": TokenSpan(7, _LENGTH),
    }
    return Encoding(
        trace_id="check",
        text="",
        input_ids=torch.randint(0, top, (_LENGTH,), generator=generator),
        offsets=((0, 0),) * _LENGTH,
        response_start=2,
        spans=MappingProxyType(spans),
        straddling=(),
    )


def _eager_patterns(model: Model, batch: Batch) -> list[Tensor]:
    """The patterns of the layers that have one, in order; linear layers return None, a state of theirs, or nothing."""
    config = find_layout(model.hf).decoder.config
    before = config._attn_implementation
    config._attn_implementation = "eager"
    try:
        with _without_traces(model.hf):
            output = model.hf(**batch.inputs(model.device), output_attentions=True)
    finally:
        config._attn_implementation = before
    returned = getattr(output, "attentions", None) or ()
    return [a for a in returned if isinstance(a, torch.Tensor) and a.ndim == 4 and a.shape[-2:] == (_LENGTH, _LENGTH)]


@contextmanager
def _without_traces(hf: nn.Module) -> Iterator[None]:
    """Remove the hooks that transformers leaves in a model, and notes there, once it has returned attentions."""
    modules = list(hf.modules())
    known = [(set(module._forward_hooks), _HOOKED in vars(module)) for module in modules]
    try:
        yield
    finally:
        noted = [
            module
            for module, (_, was_noted) in zip(modules, known, strict=True)
            if _HOOKED in vars(module) and not was_noted
        ]
        for module in noted:
            delattr(module, _HOOKED)
        # Only where the note went with them: transformers would not put them back.
        for module, (hooks, _) in zip(modules, known, strict=True) if noted else ():
            for hook in set(module._forward_hooks) - hooks:
                del module._forward_hooks[hook]
