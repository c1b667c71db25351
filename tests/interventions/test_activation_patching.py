"""A run patched with itself stays as it is, and the first-order estimate is exact where the effect is linear."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
import reference_forward
import tiny_models
import torch
from paired_traces import ONE_TOKEN, SMALL, linear_model, pairs, patched, rows_of
from slow_turns import mostly_slow

from safekey_interp.capture.places import Place
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.interventions.activation_patching import patch, summarise_patching
from safekey_interp.interventions.activation_swaps import (
    Swap,
    class_positions,
    match_positions,
    swapping,
)
from safekey_interp.interventions.attribution_patching import attribute, compare_attribution
from safekey_interp.interventions.intervention_parts import POSITIONS
from safekey_interp.interventions.trace_pairs import TracePair, find_pairs
from safekey_interp.interventions.variant_scores import score_variants
from safekey_interp.models import organism
from safekey_interp.models.model import Model, load


@lru_cache
def toy() -> Model:
    return load("organism")


def n_hooks(model: Model) -> int:
    """transformers leaves hooks of its own where hidden states were asked for once."""
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.hf.modules())


@pytest.mark.parametrize("architecture", [*tiny_models.ARCHITECTURES])
def test_a_run_patched_with_itself_stays_as_it_is(architecture: str) -> None:
    model = tiny_models.tiny_model(architecture)
    before = n_hooks(model)
    table = patched(model, [TracePair(trace, trace) for trace in reference_forward.with_spans(3)], n_random=0)
    assert len(table) == 3 * model.n_layers * len(POSITIONS) * 4
    assert table["effect"].abs().max() < 1e-5
    assert table["attribution"].abs().max() < 1e-4
    assert table["gap"].abs().max() < 1e-5
    assert n_hooks(model) == before


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt_oss"])
def test_an_effect_is_the_literal_one(architecture: str) -> None:
    """Whole sequences, one at a time, states copied by hand."""
    model, [pair] = tiny_models.tiny_model(architecture), pairs(2)
    table = patched(model, [pair], n_random=0, layers=[1]).set_index(["position", "metric"])
    source, target = (rows_of(model, trace) for trace in pair)
    with torch.no_grad():
        states = model.hf(input_ids=source[0].ids[None, : source[0].start], output_hidden_states=True).hidden_states[2][
            0
        ]
    for position in ("understanding", "prompt", "decision"):
        a, b = class_positions(source, position), class_positions(target, position)
        n = min(len(a), len(b))

        def put(_module: torch.nn.Module, _args: object, out: torch.Tensor, a=a[-n:], b=b[-n:]) -> torch.Tensor:
            changed = out.clone()
            changed[0, b] = states[a]
            return changed

        handle = model.hf.model.layers[1].register_forward_hook(put)
        logprobs = []
        for row in rows_of(model, pair.target):
            with torch.no_grad():
                found = model.hf(input_ids=row.ids[None]).logits[0].log_softmax(-1)
            logprobs.append(np.mean([float(found[at - 1, row.ids[at]]) for at in range(row.start, len(row.ids))]))
        handle.remove()
        difference = np.mean(logprobs[:2]) - np.mean(logprobs[2:5])
        assert table.loc[(position, "difference"), "value"] == pytest.approx(difference, rel=1e-3, abs=1e-4)
        assert table.loc[(position, "key_sentence"), "value"] == pytest.approx(logprobs[-1], rel=1e-4)
        assert table.loc[(position, "difference"), "n_positions"] == n


@pytest.mark.parametrize(
    "architecture", mostly_slow(["llama", "gemma3_text", "gpt_oss"], quick=("llama", "gemma3_text"))
)
def test_the_bridge_gives_the_same_table(architecture: str) -> None:
    model = tiny_models.tiny_model(architecture)
    ours, theirs = (patched(model, pairs(), backend=way) for way in ("hf", "bridge"))
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-3, atol=1e-3)
    assert ours["effect"].abs().max() > 1e-2


@pytest.mark.parametrize("architecture", [*tiny_models.ARCHITECTURES])
def test_small_swaps_have_the_effect_that_attribution_says(architecture: str) -> None:
    """The finite difference, at every layer and class of positions at once."""
    model, [pair] = tiny_models.tiny_model(architecture), pairs(2)
    rows = rows_of(model, pair.target)
    generator = torch.Generator().manual_seed(0)
    swaps, steps = [], []
    with torch.no_grad():
        states = model.hf(input_ids=rows[0].ids[None], output_hidden_states=True).hidden_states
    for layer in range(model.n_layers - 1):
        for position in ("prompt_end", "understanding", "decision"):
            where = tuple(class_positions(rows, position))
            own = states[layer + 1][0, list(where)]
            step = torch.randn(own.shape, generator=generator)
            steps.append(1e-3 * float(own.norm()) / float(step.norm()) * step)
            swaps.append((Place(layer, "resid_post"), position, where, own))
    forward = [Swap(*place, own + step) for (*place, own), step in zip(swaps, steps, strict=True)]
    backward = [Swap(*place, own - step) for (*place, own), step in zip(swaps, steps, strict=True)]
    with torch.no_grad():
        both = [score_variants(model, rows, len(of), swapping(of)).numpy() for of in (forward, backward)]
    finite = (both[0] - both[1]) / 2
    found = attribute(model, rows, forward)
    assert np.abs(finite).max() > 1e-4
    assert np.corrcoef(finite.ravel(), found.ravel())[0, 1] > 0.99
    np.testing.assert_allclose(found, finite, atol=0.1 * float(np.abs(finite).max()))


def test_attribution_is_exact_where_the_effect_is_linear() -> None:
    """Of sentences of one token, the difference of log-probabilities is one of logits."""
    model = linear_model()
    table = patched(model, pairs(4), bank=ONE_TOKEN, n_random=2)
    linear = table[table["metric"] == "difference"]
    assert linear["effect"].abs().max() > 0.01
    np.testing.assert_allclose(linear["attribution"], linear["effect"], rtol=1e-4, atol=1e-6)
    assert table.attrs["attribution_correlation"]["pearson"] == pytest.approx(1, abs=1e-5)
    compared = compare_attribution(table).set_index(["metric", "position", "control"])
    assert compared.loc[("difference", "all", "none"), "slope"] == pytest.approx(1, abs=1e-4)
    assert compared.loc[("key_sentence", "understanding", "none"), "pearson"] < 0.9999, "which is not linear"


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt_oss"])
def test_the_last_state_before_k_holds_all_that_its_first_token_needs(architecture: str) -> None:
    table = patched(
        tiny_models.tiny_model(architecture), pairs(), bank=ONE_TOKEN, n_random=0, layers=[-1], method="exact"
    )
    at_decision = table[(table["position"] == "decision") & (table["metric"] == "difference")]
    np.testing.assert_allclose(at_decision["share"], 1, rtol=1e-3)
    assert table.loc[table["position"] == "prompt", "effect"].abs().max() == 0, "nobody reads it behind the last layer"
    assert table["attribution"].isna().all()


def test_positions_are_matched_from_the_end() -> None:
    model, [pair] = tiny_models.tiny_model("llama"), pairs(2)
    source, target = (rows_of(model, trace) for trace in pair)
    assert len(class_positions(source, "prompt")) < len(class_positions(target, "prompt"))
    for position in POSITIONS:
        match = match_positions(source, target, position)
        assert len(match.source) == len(match.target) > 0
        assert match.source[-1] == class_positions(source, position)[-1]
        assert match.target[-1] == class_positions(target, position)[-1]
        assert max(match.target) < min(row.start for row in target)
    same = match_positions(source, target, "template")
    assert torch.equal(source[0].ids[list(same.source)], target[0].ids[list(same.target)]), (
        "one template, token for token"
    )


def test_neither_batches_nor_the_pairs_beside_it_matter() -> None:
    model = tiny_models.tiny_model("qwen2")
    table = patched(model, pairs(), n_random=0)
    pd.testing.assert_frame_equal(patched(model, pairs(), n_random=0, batch_size=3), table, rtol=1e-3, atol=1e-4)
    alone = pd.concat([patched(model, [pair], n_random=0) for pair in pairs()], ignore_index=True)
    pd.testing.assert_frame_equal(alone, table, rtol=1e-3, atol=1e-4)


def test_controls_are_other_requests_of_the_targets_outcome() -> None:
    model = tiny_models.tiny_model("llama")
    table = patched(model, pairs(4), n_random=5)
    controls = table[table["control"] == "other_request"]
    assert controls.groupby("trace_id")["donor_id"].nunique().tolist() == [2, 2, 2], "as many as there are"
    assert set(controls["donor_id"]) == {"t1", "t2", "t3"}, "never t0, which is no target"
    assert (controls["donor_id"] != controls["trace_id"]).all()
    assert (
        table.loc[table["control"] == "none", "donor_id"] == table.loc[table["control"] == "none", "source_id"]
    ).all()
    twins = [trace.with_(group="same") for trace in reference_forward.with_spans(3)]
    assert (
        not patched(model, [TracePair(twins[0], twins[1]), TracePair(twins[0], twins[2])])["control"].ne("none").any()
    )


def test_traces_are_paired_by_request_and_outcome() -> None:
    def trace(name: str, group: str, outcome: str | None, source: str = "wrapped") -> Trace:
        [like] = reference_forward.with_spans(1)
        return like.with_(
            trace_id=name, group=group, source=source, meta={} if outcome is None else {"outcome": outcome}
        )

    traces = [
        trace("wrapped refused", "x", "refused"),
        trace("plain refused", "x", "refused", "plain"),
        trace("jailbreak", "x", "complied"),
        trace("other jailbreak", "x", "complied"),
        trace("alone", "y", "complied"),
        trace("broken", "x", "malformed"),
        trace("safe by its K", "z", None),
        trace("z", "z", "complied"),
    ]
    found, left_out = find_pairs(traces)
    names = [(pair.source.trace_id, pair.target.trace_id) for pair in found]
    assert names == [
        ("plain refused", "jailbreak"),
        ("plain refused", "other jailbreak"),
        ("safe by its K", "z"),
    ]
    assert left_out == {"alone": "no refused trace of its request (y)", "broken": "neither refused nor complied"}
    turned, _ = find_pairs(traces, source="complied")
    assert ("jailbreak", "plain refused") in [(pair.source.trace_id, pair.target.trace_id) for pair in turned]
    with pytest.raises(InputError, match="source: got 'other'"):
        find_pairs(traces, source="other")  # type: ignore[arg-type]


def test_the_organisms_refusal_moves_from_its_understanding_to_the_position_that_decides() -> None:
    """76 jailbreaks of its requests succeed; a dozen are patched with the plain prompt's run."""
    harmful = [trace for trace in organism.read_shipped() if trace.label == "harmful"]
    chosen, _ = find_pairs(harmful)
    options = {"positions": ["prompt", "understanding", "decision"], "finder": "given"}
    table = patch(toy(), chosen[:12], **options)  # type: ignore[arg-type]
    summary = summarise_patching(table)
    share = summary[
        (summary["measure"] == "share") & (summary["metric"] == "difference") & (summary["subset"] == "all")
    ]
    share = share.set_index(["position", "layer"])
    assert share.loc[("decision", 3), "low"] > 0.6
    assert abs(share.loc[("decision", 3), "control"]) < 0.3
    assert share.loc[("decision", 3), "excess_low"] > 0.4
    assert share.loc[("decision", 0), "high"] < 0.2 < share.loc[("understanding", 0), "low"]
    assert share.loc[("prompt", 3), "value"] == 0
    assert (share["n"] == 12).all()
    correlation = table.attrs["attribution_correlation"]
    assert correlation["n"] == 12 * 4 * 3
    assert 0.5 < correlation["low"] < correlation["pearson"] < correlation["high"] <= 1


def test_what_cannot_be_patched_is_refused_or_left_out() -> None:
    model = tiny_models.tiny_model("llama")
    for options, says in (
        ({"positions": ["key_sentence"]}, "none of the positions key_sentence in common"),
        ({"method": "fast"}, "method: got 'fast'"),
        ({"layers": [9]}, "layers: got"),
        ({"n_random": -1}, "n_random: got -1"),
    ):
        with pytest.raises(InputError, match=says):
            patched(model, pairs(), **options)
    with pytest.raises(InputError, match="no pair of traces of one request"):
        patch(model, reference_forward.with_spans(3), bank=SMALL)
    traces = reference_forward.with_spans(3)
    bare = traces[0].with_(trace_id="bare", response="", given={})
    table = patched(model, [TracePair(bare, traces[2]), TracePair(traces[0], traces[1])])
    assert set(table["trace_id"]) == {"t1"}
    assert table.attrs["left_out"]["t2"].startswith("no key sentence")
    with pytest.raises(InputError, match="no pair of traces can be patched"):
        patched(model, [TracePair(traces[0], bare)])


def test_without_components_the_table_has_no_such_column_and_the_same_numbers() -> None:
    model = tiny_models.tiny_model("llama")
    plain, named = patched(model, pairs(2)), patched(model, pairs(2), components=["resid_post"])
    assert "component" not in plain
    pd.testing.assert_frame_equal(named.drop(columns="component"), plain)
    assert set(named["component"]) == {"resid_post"}


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "phi3"])
def test_one_stream_has_many_names(architecture: str) -> None:
    """The stream before a layer is that after the one before; the last, normed, is what the logits read."""
    model = tiny_models.tiny_model(architecture)
    table = patched(model, pairs(), components=["resid_pre", "resid_post", "ln_final"], n_random=0)
    of = {
        name: part.drop(columns="component").set_index(["trace_id", "position", "metric", "layer"])
        for name, part in table.groupby("component")
    }
    numbers = ["effect", "attribution"]
    before = of["resid_pre"].drop(index=0, level="layer")[numbers].sort_index()
    after = of["resid_post"].rename(index=lambda n: n + 1, level="layer")[numbers]
    assert before.abs().max().min() > 1e-2
    np.testing.assert_allclose(before, after.loc[before.index], rtol=1e-4, atol=1e-4)
    last = of["ln_final"][numbers].sort_index()
    np.testing.assert_allclose(last["effect"], after.loc[last.index, "effect"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "qwen3", "phi3", "gpt_oss"])
def test_a_run_patched_with_its_own_components_stays_as_it_is(architecture: str) -> None:
    model = tiny_models.tiny_model(architecture)
    components = ["resid_pre", "resid_mid", "attn_out", "mlp_out", "head", "ln_final"]
    trace = reference_forward.with_spans(1)[0]
    table = patched(model, [TracePair(trace, trace)], components=components, n_random=0)
    assert set(table["component"]) == {*components} - {"head"} | {f"head.{n}" for n in range(model.n_heads)}
    assert table["effect"].abs().max() < 1e-4
    assert table["attribution"].abs().max() < 1e-4


def test_first_order_estimates_of_components_add_up_to_that_of_attention() -> None:
    """Attention writes the sum of its heads, so that their first-order effects sum to its own."""
    model = tiny_models.tiny_model("llama")
    table = patched(model, pairs(), components=["head", "attn_out"], method="attribution", n_random=0)
    keys = ["trace_id", "layer", "position", "metric"]
    whole = table[table["component"] == "attn_out"].set_index(keys)["attribution"].sort_index()
    heads = table[table["component"] != "attn_out"].groupby(keys)["attribution"].sum().loc[whole.index]
    assert whole.abs().max() > 1e-2
    np.testing.assert_allclose(heads, whole, rtol=1e-3, atol=1e-5)


def test_components_are_exact_where_the_model_is_linear() -> None:
    table = patched(linear_model(), pairs(4), bank=ONE_TOKEN, components=["head", "attn_out", "resid_mid"])
    linear = table[table["metric"] == "difference"]
    assert linear.groupby("component")["effect"].agg(lambda x: x.abs().max()).min() > 1e-3
    np.testing.assert_allclose(linear["attribution"], linear["effect"], rtol=1e-4, atol=1e-5)
    compared = compare_attribution(table).set_index(["metric", "control", "component", "position"])
    assert compared.loc[("difference", "none", "attn_out", "all"), "slope"] == pytest.approx(1, abs=1e-3)
    assert compared.loc[("difference", "none", "all", "all"), "n"] == 3 * 3 * 6 * len(POSITIONS)
    summary = summarise_patching(table)
    assert list(summary.columns[:4]) == ["layer", "component", "position", "metric"]


def test_components_that_cannot_be_patched_are_refused() -> None:
    model = tiny_models.tiny_model("llama")
    for components in (["attn"], ["head.9"], "head", []):
        with pytest.raises(InputError, match="components: got"):
            patched(model, pairs(2), components=components)
