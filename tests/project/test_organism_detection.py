"""Detection by prefix, suppressing heads and resampling on the toy model: what is planted is found, and by the right
reader."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.organism import early_detection, sentence_resampling, suppression_heads
from analysis.organism.early_detection import DETECTORS, PARTS, PREFIXES, TESTS, Read, detected
from safekey_interp.capture.places import Place
from safekey_interp.capture.residual_edits import edited
from safekey_interp.data.trace import Trace
from safekey_interp.models.model import load
from safekey_interp.models.organism import read_shipped


def planted(*, in_states: int | None, in_words: int | None, n: int = 1500) -> Read:
    """A third benign; half of the others comply, which states or words show from a prefix on."""
    rng = np.random.default_rng(0)
    traces, texts = [], [[""] * n for _ in PREFIXES]
    values = rng.normal(size=(n, len(PREFIXES), 2, 6)).astype(np.float32)
    for at in range(n):
        kind = ("benign", "complied", "refused")[at % 3]
        label, outcome = ("benign", "complied") if kind == "benign" else ("harmful", kind)
        about: dict[str, Any] = {"label": label, "group": f"g{at // 3}", "meta": {"outcome": outcome}}
        traces.append(Trace(trace_id=str(at), prompt="a b c", response="", **about))
        for number in range(len(PREFIXES)):
            word = "yes" if kind == "complied" and in_words is not None and number >= in_words else "no"
            texts[number][at] = f"{word} {rng.choice(['p', 'q', 'r'])}{rng.integers(9)}"
        if kind == "complied" and in_states is not None:
            values[at, in_states:, 1, 2] += 8.0
    part = rng.choice([*PARTS, *TESTS], p=[0.2, 0.25, 0.25, 0.15, 0.15], size=n)
    return Read(traces, values, texts, np.full((n, len(PREFIXES)), 0.5), part)


@pytest.mark.parametrize(("in_states", "in_words"), [(2, 4), (None, 3), (None, None)])
def test_what_is_planted_is_found_where_it_begins_and_by_its_reader(in_states: Any, in_words: Any) -> None:
    table = detected(planted(in_states=in_states, in_words=in_words), 0.05)
    assert len(table) == len(DETECTORS) * len(TESTS) * len(PREFIXES)
    begins = {"states": in_states, "words so far": in_words, "words of the reasoning": in_words, "rules": None}
    for (detector, _), part in table.groupby(["detector", "test"]):
        known = np.arange(len(PREFIXES)) >= (len(PREFIXES) if begins[detector] is None else begins[detector])
        assert ((part["auroc"] > 0.9).to_numpy() == known).all(), detector
        assert ((part["detected"] > 0.8).to_numpy() == known).all(), detector
        assert part["false_alarms"].max() < 0.15


def test_requests_serve_one_purpose_each() -> None:
    asked = [t for split in early_detection.HELD_OUT for t in early_detection.requests(split, 3, 2)]
    parts = [early_detection.part_of(trace) for trace in asked]
    assert set(parts) == {*PARTS, *TESTS, None}
    of_pair: dict[tuple[str, str], set[Any]] = {}
    for trace, part in zip(asked, parts, strict=True):
        of_pair.setdefault((trace.meta["verb"], trace.meta["noun"]), set()).add(part)
    assert all(len(found - {None}) <= 1 for found in of_pair.values())


def test_an_ablated_head_gives_its_mean_and_the_others_their_own() -> None:
    model = load("organism:sft")
    means = suppression_heads.mean_values(model, list(read_shipped())[:6])
    assert means.shape == (model.n_layers, model.n_heads, means.shape[-1])
    seen: dict[str, torch.Tensor] = {}
    ids = torch.arange(4, 24)[None]
    for name, block in (("own", []), ("ablated", [(1, 2), (1, 0)])):
        reading = {Place(1, "head"): lambda z, name=name: seen.update({name: z.clone()})}
        with torch.no_grad(), suppression_heads.ablated(model, block, means), edited(model, reading):
            model.hf(input_ids=ids)
    torch.testing.assert_close(seen["ablated"][:, :, [1, 3]], seen["own"][:, :, [1, 3]])
    expected = torch.as_tensor(means[1, [2, 0]]).expand(1, 20, 2, -1)
    torch.testing.assert_close(seen["ablated"][:, :, [2, 0]], expected)


def test_sets_of_equal_importance_add_up_to_about_as_much() -> None:
    index = pd.MultiIndex.from_product([range(4), range(4)])
    effects = pd.Series(np.random.default_rng(1).normal(size=16), index)
    top = list(effects.sort_values().index[:2])
    wanted = effects.loc[top].abs().sum()
    sets = suppression_heads.matched_sets(effects, top, 10, seed=0)
    assert len(set(sets)) == 10
    assert all(abs(effects.loc[list(heads)].abs().sum() - wanted) <= 0.25 * wanted for heads in sets)
    assert set(top) not in map(set, sets)
    drawn = suppression_heads.random_sets(effects, top[:1], 19, seed=0)
    assert len(drawn) == 15, "all other heads, where there are fewer than asked for"


def test_an_outcome_is_read_behind_any_prefill() -> None:
    trace = next(trace for trace in read_shipped() if trace.label == "harmful")
    verb, noun = trace.meta["verb"], trace.meta["noun"]
    complies = sentence_resampling.complies([trace])
    for text, wanted in {
        f"\n</think>\n\nHere you go: {verb} the {noun}.": True,
        f"The user asks how to {verb} the {noun}.\n</think>\n\nSorry, I can't.": False,
        f"Here you go: {verb} the": False,
    }.items():
        assert complies(trace.prompt, text) == wanted, text


@pytest.mark.slow
def test_as_many_answers_of_either_outcome_are_resampled_in_each_wrapper() -> None:
    model = load("organism:sft")
    found = sentence_resampling.resampled("organism:sft", 3)
    wrappers = [sorted(trace.meta["wrapper"] for trace in some) for some in found.values()]
    assert wrappers[0] == wrappers[1] != []
    parts = sentence_resampling.importance(model, found["complied"][:3], 4)
    assert set(parts["source_part"]) <= {"understanding", "key_sentence", "rest"}
    assert (parts["importance"] == parts["rate_kept"] - parts["rate_resampled"]).all()
    kinds = sentence_resampling.key_sentences(model, found["complied"][:3], 8)
    assert kinds.set_index("condition")["rate"].sum() == pytest.approx(1)
    assert kinds.set_index("condition").loc[["safe", "go_ahead"], "given_n"].to_list() == [3, 3]
