"""Comparison of two branches: the first token that differs, and both models' probabilities of the same tokens.

The tokens are the first branch's, read once under its own model, edits and patch, and once under the other's:

    logprob_difference = mean over tokens d of  log p(y_d | x, y_<d) − log q(y_d | x, y_<d)
    kl_d               = Σ_v p(v | x, y_<d) · log [ p(v | x, y_<d) / q(v | x, y_<d) ]              nats
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from safekey_interp.exploration.branch_record import BranchDifference
from safekey_interp.exploration.branch_state import BranchState
from safekey_interp.generation.kl import check_same_vocabulary

if TYPE_CHECKING:
    from safekey_interp.exploration.branch_tree import BranchTree


def compare_branches(tree: BranchTree, state: BranchState, other: BranchState) -> BranchDifference:
    """A branch compared with another one.

    Args:
        tree: of both.
        state: whose tokens are read.
        other: what it is compared with.

    Raises:
        ModelError: the models have other vocabularies.
    """
    import pandas as pd

    if state.model is not other.model:
        check_same_vocabulary(state.model, other.model)
    own, its = (each.tokens.ids for each in (state, other))
    first = next((at for at, (a, b) in enumerate(zip(own, its, strict=False)) if a != b), None)
    if first is None and len(own) != len(its):
        first = min(len(own), len(its))
    columns = {name: np.zeros(0) for name in ("logprob", "logprob_other", "kl")}
    if own:
        p, q = (_logprobs(tree, state, under) for under in (state, other))
        width = min(p.shape[-1], q.shape[-1])  # embeddings may be padded past the vocabulary
        p, q = p[:, :width].log_softmax(-1), q[:, :width].log_softmax(-1)
        at = torch.tensor(own)[:, None]
        chance = p.exp()
        columns = {
            "logprob": p.gather(-1, at)[:, 0].numpy(),
            "logprob_other": q.gather(-1, at)[:, 0].numpy(),
            "kl": torch.where(chance > 0, chance * (p - q), 0.0).sum(-1).numpy(),
        }
    table = pd.DataFrame(
        {"position": [token.position for token in state.tokens], "token": [token.text for token in state.tokens]}
        | columns
    )
    apart = (columns["logprob"] - columns["logprob_other"])[first or 0 :]
    labels = tuple(None if each.ended is None else each.ended.label for each in (state, other))
    return BranchDifference(
        branch=state.branch_id,
        other=other.branch_id,
        first_difference=first,
        logprob_difference=float(apart.mean()) if len(apart) else np.nan,
        labels=(labels[0], labels[1]),
        tokens=table,
    )


def _logprobs(tree: BranchTree, state: BranchState, under: BranchState) -> Float[Tensor, "token d_vocab"]:
    """Logits that predict a branch's response, under the model and changes of another one; float64 on the CPU."""
    stream = tree.stream_under(state, under)
    hf, first = stream.model.hf, max(0, stream.prompt.response_start - 1)
    n = len(stream.ids)
    keep = {"logits_to_keep": n - first} if "logits_to_keep" in inspect.signature(hf.forward).parameters else {}
    ids = torch.tensor([stream.ids], device=stream.model.device)
    with stream.applied():
        logits = hf(input_ids=ids, use_cache=False, **keep).logits[0, first - n :]
    return logits[: len(state.tokens)].cpu().double()
