"""Style gate of training traces: do U's own words, apart from the request, give the label away?

TF-IDF of U without the request that it restates, a logistic probe, five folds of whole groups
(:mod:`safekey_interp.measures.text_baseline`). Above ``MOST_STYLE`` the labels are a matter of style, which a model
would learn in the place of harm, so no training begins.

    python -m analysis.real_model --gate --data ../shared/data

The request is masked as the longest run of characters that U and it share, whatever their case. Leaving out the
prompt's words one by one would not do: benign prompts have function words of the frame (``the``, ``so``, ``me``) that
harmful ones lack, so a gap in the frame would tell the label.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

import numpy as np

from analysis.real_model.real_study_design import DATA_SEED, MOST_STYLE
from safekey_interp.data.class_labels import HARM
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.measures.folds import make_plan, positive_class, why_not
from safekey_interp.measures.layer_scores import score_texts


class Style(NamedTuple):
    """What U's words say of the label; AUROC over held-out groups."""

    frame: float
    """Of U without the request: what the gate reads."""
    whole: float
    """Of U with it."""
    prompt: float
    """Of the prompt alone."""

    @property
    def passes(self) -> bool:
        """Whether training may begin."""
        return self.frame <= MOST_STYLE


def style(traces: Sequence[Trace]) -> Style:
    """Measure it on traces with a given understanding, a label, and in ``meta`` the request that U restates.

    Raises:
        InputError: too few groups of a label.
    """
    labels = positive_class([trace.label for trace in traces], HARM)
    groups = [trace.group for trace in traces]
    if reason := why_not(labels == 1, groups, HARM):
        raise InputError(f"gate: {reason}")
    plan = make_plan(np.arange(len(traces)), labels, groups, seed=DATA_SEED)
    texts = {
        "frame": [masked(trace) for trace in traces],
        "whole": [trace.given["understanding"].text(trace.response) for trace in traces],
        "prompt": [trace.prompt for trace in traces],
    }
    return Style(**{name: score_texts(read, plan).observed for name, read in texts.items()})


def masked(trace: Trace) -> str:
    """U without the request that it restates."""
    u = trace.given["understanding"].text(trace.response)
    match = SequenceMatcher(None, u.lower(), trace.meta["request"].lower(), autojunk=False).find_longest_match()
    return f"{u[: match.a]} {u[match.a + match.size :]}"


def check_style(traces: Sequence[Trace]) -> Style:
    """The style of traces that may be trained on.

    Raises:
        InputError: U's words give the label away.
    """
    found = style(traces)
    if not found.passes:
        raise InputError(
            f"gate: TF-IDF on U without the request tells the labels apart with AUROC {found.frame:.3f}, expected at "
            f"most {MOST_STYLE}; give both labels the same kinds of U"
        )
    return found
