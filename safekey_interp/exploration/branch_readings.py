"""Readings of a branch at one token: attention, logit lens, what heads write, and a branch's difference from another.

Each is read from one forward pass of exactly the tokens that the branch read and wrote, under its edits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from safekey_interp.capture.batch_runner import LeftOut, Measured, measure_batch
from safekey_interp.capture.capture_request import CaptureRequest, span_pairs
from safekey_interp.capture.layer_parts import layer_parts
from safekey_interp.capture.residual_edits import Place
from safekey_interp.capture.self_check import check_attention
from safekey_interp.capture.unembedding import LogitReader
from safekey_interp.errors import InputError, ModelError
from safekey_interp.exploration.branch_comparison import compare_branches
from safekey_interp.exploration.branch_record import Branch, BranchDifference
from safekey_interp.exploration.branch_state import BranchState
from safekey_interp.exploration.branch_tree import BranchTree
from safekey_interp.generation.row_readings import watched_states
from safekey_interp.interventions.direct_logit_attribution import read_bank_effects
from safekey_interp.measures.attention import attention_table
from safekey_interp.models.model import Model

if TYPE_CHECKING:
    import pandas as pd

_ATTENTION = (
    *("layer", "head", "to_span", "mass", "mass_rest", "uniform_mass", "lift", "random_mass"),
    *("matched_mass", "matched_mass_other", "entropy", "n_k"),
)


class BranchReadings:
    """What can be read of a session's branches."""

    _tree: BranchTree
    _seed: int

    def attention(self, branch: Branch | str, position: int) -> pd.DataFrame:
        """Attention of one token to each span, in all layers and heads, under the branch's edits.

        Args:
            branch: the branch, or its id.
            position: of a token that was read or written.

        Returns:
            One row per layer, head and span: layer, head, to_span, mass, mass_rest, uniform_mass, lift, random_mass,
            matched_mass, matched_mass_other, entropy, n_k, as :func:`~safekey_interp.measure_attention` has them for
            the query ``token(position)``.

        Raises:
            InputError: no such branch or token.
            ModelError: the model's attention cannot be read.
        """
        state, measured = self._measured(branch, position, token_weights=False)
        assert measured.attention is not None
        table: Any = attention_table(state.branch.trace.trace_id, measured.attention, range(state.model.n_layers))
        return table[list(_ATTENTION)]

    def token_attention(
        self, branch: Branch | str, position: int, *, layer: int | None = None, head: int | None = None
    ) -> pd.DataFrame:
        """Attention of one token to every token before it and itself.

        Args:
            branch: the branch, or its id.
            position: of a token that was read or written.
            layer: one layer, negative counted from the last; the mean over all when None.
            head: one head; the mean over all when None.

        Returns:
            One row per token: position, token, weight, in [0, 1].

        Raises:
            InputError: no such branch, token, layer or head.
            ModelError: the model's attention cannot be read.
        """
        import pandas as pd

        state, measured = self._measured(branch, position, token_weights=True)
        layers = None if layer is None else list(state.model.layer_numbers([layer]) or ())
        n_heads = state.model.n_heads
        if head is not None and not 0 <= head < n_heads:
            raise InputError(f"head: got {head}, expected one of 0 to {n_heads - 1}")
        weights: Any = measured.token_weights
        weights = weights[:, :, 0] if layers is None else weights[layers, :, 0]
        weights = weights if head is None else weights[:, [head]]
        texts = [measured.encoding.text[start:end] for start, end in measured.encoding.offsets[: weights.shape[-1]]]
        mean = np.nanmean(weights, axis=(0, 1)) if np.isfinite(weights).any() else weights[0, 0]
        return pd.DataFrame({"position": np.arange(len(texts)), "token": texts, "weight": mean})

    def lens(self, branch: Branch | str, position: int, *, top: int = 5) -> pd.DataFrame:
        """Logit lens: what each layer says the next token is.

        Returns:
            One row per layer and rank: layer, rank (0 for the likeliest), token, token_id, logprob (nats), and
            written_logprob, that of the token that stands there; NaN behind the last token.

        Raises:
            InputError: no such branch or token.
            ModelError: the model's states cannot be read as logits.
        """
        import pandas as pd

        if top < 1:
            raise InputError(f"top: got {top}, expected at least 1")
        with self._reading(branch, position) as (state, ids):
            model = state.model
            reader = self._cached("lens", model, LogitReader)
            places = [Place(layer, "resid_post") for layer in range(model.n_layers)]
            with state.stream.applied(), watched_states(model, places) as seen:
                model.hf.get_decoder()(input_ids=ids[None, : position + 1], use_cache=False)
                logits = torch.cat([reader.logits(seen[place][0, -1:]).cpu() for place in places])
        logprobs = logits.log_softmax(-1)
        written = logprobs[:, int(ids[position + 1])].tolist() if position + 1 < len(ids) else [np.nan] * len(places)
        best = logprobs.topk(min(top, logprobs.shape[-1]))
        rows = [
            {"layer": layer, "rank": rank, "token": model.tokenizer.decode([token]), "token_id": token}
            | {"logprob": logprob, "written_logprob": written[layer]}
            for layer, (values, tokens) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True))
            for rank, (logprob, token) in enumerate(zip(values, tokens, strict=True))
        ]
        return pd.DataFrame(rows)

    def writes(self, branch: Branch | str, position: int) -> pd.DataFrame:
        """What each head writes towards compliance or refusal at one token: direct logit attribution.

        Returns:
            One row per layer and head: layer, head, effect (logits towards tokens that a compliant key sentence begins
            with minus those of a safe one), control_mean and control_sd (of random differences of tokens).

        Raises:
            InputError: no such branch or token.
            ModelError: the model's heads cannot be read.
        """
        with self._reading(branch, position) as (state, ids):
            reader = self._cached("lens", state.model, LogitReader)
            layer_parts(state.model.hf)  # found by a pass of its own, which no edit must change
            with state.stream.applied():
                effects = read_bank_effects(state.model, reader, ids[: position + 1], seed=self._seed)
        return effects.assign(effect=-effects["effect"], control_mean=-effects["control_mean"])

    def difference(self, branch: Branch | str, other: Branch | str | None = None) -> BranchDifference:
        """A branch compared with another, its parent when None.

        Raises:
            InputError: no such branch, or a root without another.
            ModelError: models of other vocabularies.
        """
        with self._tree.lock:
            state = self._tree.state(branch)
            parent = other if other is not None else state.branch.parent
            if parent is None:
                raise InputError(f"difference: branch {state.branch_id} is a root; name another branch")
            return compare_branches(self._tree, state, self._tree.state(parent))

    def _measured(self, branch: Branch | str, position: int, *, token_weights: bool) -> tuple[BranchState, Measured]:
        spans = span_pairs([f"token({position})"], () if token_weights else None)
        request = CaptureRequest(states=False, token_weights=token_weights, spans=spans)
        with self._reading(branch, position) as (state, _):
            check_attention(state.model)
            encoding = replace(state.encoding, reads=request.reads)
            with state.stream.applied():
                [measured] = measure_batch(state.model, [encoding], request)
        if isinstance(measured, LeftOut):
            raise ModelError(measured.reason)
        return state, measured

    @contextmanager
    def _reading(self, branch: Branch | str, position: int) -> Iterator[tuple[BranchState, torch.Tensor]]:
        """A branch and its tokens, under the lock."""
        with self._tree.lock:
            state = self._tree.state(branch)
            ids = state.encoding.input_ids
            if not 0 <= position < len(ids):
                raise InputError(f"position: got {position}, expected one of the branch's tokens, 0 to {len(ids) - 1}")
            yield state, ids.to(state.model.device)

    def _cached(self, what: str, model: Model, make: Callable[[Model], Any]) -> Any:
        """What is found in a model once."""
        known = self.__dict__.setdefault("_found", {})
        if (what, id(model)) not in known:
            known[what, id(model)] = make(model)
        return known[what, id(model)]
