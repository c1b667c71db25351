"""Capture of attention and hidden states, reduced inside the forward pass.

    with capture(model, batch, request) as captured:
        model.hf(**batch.inputs(model.device), logits_to_keep=1)
    captured.attention[3].masses, captured.states[Place(3, "resid_post")]

Inside the pass every layer's pattern is reduced to a few numbers per head, and every layer's output to one vector per
position: nothing of size sequence × sequence or sequence × d_model is kept. Hooks are removed when the block ends, also
after an exception; captures may nest. A layer that runs twice (gradient checkpointing) overwrites its answer. With
``grad=True`` the answers stay in the graph; under gradient checkpointing the backward pass then belongs inside the
block.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn

from safekey_interp.capture.architecture import find_layout
from safekey_interp.capture.attention_hook import observed_attention
from safekey_interp.capture.attention_rows import MeanRows, RowMask, mean_pattern_rows, mean_rows, row_mask
from safekey_interp.capture.batches import Batch
from safekey_interp.capture.capture_request import CaptureRequest
from safekey_interp.capture.distance_baseline import find_baseline, matched_masses, on_device
from safekey_interp.capture.feature_maps import FeatureMeans
from safekey_interp.capture.key_sets import KeyWeights, QueryRows, key_weights, query_rows
from safekey_interp.capture.places import Place
from safekey_interp.capture.position_means import PositionMeans, mean_readings, present
from safekey_interp.capture.residual_edits import Edit, edited
from safekey_interp.errors import ModelError
from safekey_interp.models.model import Model


class Answered(Exception):
    """Ends a forward pass that has answered everything; caught at the end of the block that began the capture."""


class _Kind(NamedTuple):
    """Layers that see the same keys: full attention, or one sliding window."""

    size: tuple[torch.device, int, int]
    mask: Tensor | None
    rows: RowMask
    keys: KeyWeights
    columns: Tensor
    baseline: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class LayerAttention:
    """One layer's answer about attention."""

    masses: Float[Tensor, "batch head query_span column"]
    """Mean mass of each query span on the columns of :class:`~safekey_interp.capture.key_sets.KeyWeights`."""
    matched: Float[Tensor, "batch head query_span key_span"]
    """Distance-matched baseline (:mod:`.distance_baseline`), from the first reference's rows; NaN where undefined."""
    matched_other: Float[Tensor, "batch head query_span key_span"]
    """The same from the second reference's."""
    entropy: Float[Tensor, "batch head query_span"]
    """Mean entropy of the rows, nats."""
    keys: KeyWeights
    """What the columns are, for this kind of layer."""
    token_weights: Float[Tensor, "batch head query_span k_pos"] | None
    """Mean weight of every token, on request."""


@dataclass(kw_only=True)
class Captured:
    """What a forward pass answered; filled while it runs."""

    batch: Batch
    """The batch."""
    request: CaptureRequest
    """What was asked."""
    n_layers: int
    """Layers of the model."""
    rows: QueryRows
    """Rows of the pattern that were read."""
    grad: bool = False
    """Whether the answers stay in the autograd graph."""
    stop: bool = False
    """Whether the pass ends as soon as it has answered."""
    attention: dict[int, LayerAttention] = field(default_factory=dict)
    """Per layer; a layer without a pattern (linear attention) is absent."""
    places: tuple[Place, ...] = ()
    """Those of the request's that the model has."""
    states: dict[Place, Float[Tensor, "batch position width"]] = field(default_factory=dict)
    """Per place, averaged over each of ``request.positions``; zeros where a position is absent."""
    features: Float[Tensor, "batch position feature"] | None = None
    """The request's features, averaged over each of its positions; zeros where a position is absent."""
    _kinds: list[_Kind] = field(default_factory=list)
    _rows: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def empty(
        cls, batch: Batch, request: CaptureRequest, model: Model, *, grad: bool = False, stop: bool = False
    ) -> Captured:
        """Before the forward pass."""
        n_layers = len(find_layout(model.hf).layers)
        rows = query_rows(batch.encodings, batch.starts, request.spans)
        places = present(model.hf, request.sites(n_layers), request.head) if request.states else ()
        return cls(batch=batch, request=request, n_layers=n_layers, rows=rows, places=places, grad=grad, stop=stop)

    def readings(self, hf: Any) -> dict[Place, Edit]:
        """What reads the states of a forward pass."""
        means = PositionMeans(self.batch, self.request.positions)
        readings = mean_readings(hf, means, self.places, self._keep_state, self.request.head)
        if (features := self.request.features) is not None:
            place = Place(features.layer, features.site)
            keep = partial(self._keep_features, FeatureMeans(means, features))
            readings[place] = partial(_one_after_another, readings[place], keep) if place in readings else keep
        return {place: partial(self._read, edit) for place, edit in readings.items()}

    @property
    def layers_without_pattern(self) -> tuple[int, ...]:
        """Requested layers that have no attention pattern."""
        wanted = range(self.n_layers) if self.request.layers is None else self.request.layers
        return tuple(layer for layer in wanted if layer not in self.attention)

    def see_attention(
        self, module: Any, query: Tensor, key: Tensor, attention_mask: Tensor | None, options: dict[str, Any]
    ) -> Tensor | None:
        """Reduce one layer's pattern, from its queries and keys; its mask stays. Called by the attention hook."""
        if not self.request.attention or not self.request.reads_layer(module.layer_idx):
            return attention_mask
        with torch.set_grad_enabled(self.grad and torch.is_grad_enabled()):
            rows, row_weights = self._rows_on(query.device)
            mask, kind = self._kind_of(attention_mask, query.device, query.shape[2], key.shape[2])
            scaling = options.get("scaling") or getattr(module, "scaling", None) or query.shape[-1] ** -0.5
            mean = mean_rows(query, key, rows, row_weights, mask, options=options, scaling=scaling)
            self._keep(module.layer_idx, mean, kind)
        self._stop_when_answered()
        return attention_mask

    def see_pattern(self, layer: int, pattern: Float[Tensor, "batch head q_pos k_pos"], visible: Tensor) -> None:
        """Reduce one layer's pattern, from the whole of it; called by the bridge's hook.

        Args:
            layer: the layer.
            pattern: its attention pattern.
            visible: (batch, #head, q_pos, k_pos) bool, what each row sees.
        """
        with torch.set_grad_enabled(self.grad and torch.is_grad_enabled()):
            rows, row_weights = self._rows_on(pattern.device)
            _, kind = self._kind_of(visible, pattern.device, pattern.shape[2], pattern.shape[3])
            self._keep(layer, mean_pattern_rows(pattern, rows, row_weights), kind)

    def forget(self) -> None:
        """Let go of the masks that the pass used."""
        self._kinds.clear()

    def _keep(self, layer: int, mean: MeanRows, kind: _Kind) -> None:
        matched, matched_other = matched_masses(mean.pattern, kind.baseline)
        self.attention[layer] = LayerAttention(
            masses=einsum(mean.weights, kind.columns, "b h f k, b f k c -> b h f c"),
            matched=matched,
            matched_other=matched_other,
            entropy=mean.entropy,
            keys=kind.keys,
            token_weights=mean.weights if self.request.token_weights else None,
        )

    def _read(self, edit: Edit, states: Tensor) -> None:
        with torch.set_grad_enabled(self.grad and torch.is_grad_enabled()):
            edit(states)
        self._stop_when_answered()

    def _keep_state(self, place: Place, means: Tensor) -> None:
        self.states[place] = means

    def _keep_features(self, means: FeatureMeans, states: Tensor) -> None:
        self.features = means(states)

    def _stop_when_answered(self) -> None:
        """Layers answer in their order, so all are done when the last one is."""
        if not self.stop:
            return
        last = self.n_layers - 1 if self.request.layers is None else max(self.request.layers)
        if self.request.attention and last not in self.attention:
            return
        if len(self.states) < len(self.places) or (self.request.features is not None and self.features is None):
            return
        raise Answered

    def _kind_of(self, mask: Tensor | None, device: torch.device, n_queries: int, n_keys: int) -> tuple[RowMask, _Kind]:
        """What the rows see in a layer, and the weights of the keys for this kind of layer.

        Both are made once for each mask that the pass uses: comparing masks by their values, and reading what they
        show, makes the processor wait for the device.
        """
        size = device, n_queries, n_keys
        known = [kind for kind in self._kinds if kind.size == size]
        for kind in known:
            if _same(kind.mask, mask):
                return kind.rows, kind
        # A missing mask means causal, which is known without the device.
        rows, _ = self._rows_on(torch.device("cpu") if mask is None else mask.device)
        cut = row_mask(mask, rows, n_queries, n_keys, first_row=int(self.rows.index.min()))
        seen = cut.visible.any(dim=1).cpu().numpy()
        cut = cut._replace(visible=cut.visible.to(device))
        for kind in known:
            if torch.equal(kind.rows.visible, cut.visible):
                return cut, kind
        planned = self.batch.encodings, self.batch.starts, self.rows, seen
        keys = key_weights(*planned, n_random=self.request.n_random, seed=self.request.seed, spans=self.request.spans)
        columns = torch.as_tensor(keys.weights, device=device)
        baseline = on_device(find_baseline(*planned, self.request.spans), device)
        self._kinds.append(_Kind(size, mask, cut, keys, columns, baseline))
        return cut, self._kinds[-1]

    def _rows_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._rows:
            self._rows[device] = (
                torch.as_tensor(self.rows.index, device=device),
                torch.as_tensor(self.rows.weights, device=device),
            )
        return self._rows[device]


@contextmanager
def capture(
    model: Model, batch: Batch, request: CaptureRequest, *, grad: bool = False, stop: bool = False
) -> Iterator[Captured]:
    """Answer ``request`` during every forward of ``model.hf`` inside the block; the last one's answers stay.

    Args:
        model: the model.
        batch: what goes through it.
        request: what is asked.
        grad: keep the answers in the autograd graph.
        stop: end the block as soon as the pass has answered: later layers and the logits are not computed.

    Raises:
        ModelError: the architecture does not call attention through transformers' interface, or gradients would get
            lost.
    """
    if grad and _forgets_gradients(model.hf):
        raise ModelError(
            f"model {model.spec}: reentrant gradient checkpointing runs each layer without gradients first, so that "
            'none would reach it; gradient_checkpointing_enable({"use_reentrant": False})'
        )
    captured = Captured.empty(batch, request, model, grad=grad, stop=stop)
    with ExitStack() as stack:
        if request.attention:
            stack.enter_context(observed_attention(model.hf, captured))
        stack.enter_context(edited(model, captured.readings(model.hf)))
        try:
            yield captured
        except Answered:
            pass
        finally:
            captured.forget()


def _one_after_another(first: Edit, second: Edit, states: Tensor) -> None:
    first(states)
    second(states)


def _forgets_gradients(hf: nn.Module) -> bool:
    for module in hf.modules():
        if module.training and getattr(module, "gradient_checkpointing", False):
            run = getattr(module, "_gradient_checkpointing_func", None)
            if getattr(run, "keywords", {}).get("use_reentrant"):
                return True
    return False


def _same(known: Tensor | None, mask: Tensor | None) -> bool:
    """Whether two masks are one; a known mask is kept alive, so that its address is not another's."""
    if known is None or mask is None:
        return known is mask
    return known is mask or (
        known.data_ptr() == mask.data_ptr() and known.shape == mask.shape and known.stride() == mask.stride()
    )
