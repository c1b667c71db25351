"""Summaries over traces equal pandas' group-bys of the tidy table; intervals draw whole groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import reference_forward
from tiny_models import tiny_model, traces

from safekey_interp.capture.batch_runner import AttentionArrays, measure_batch
from safekey_interp.capture.capture_request import KEY_SPANS, QUERY_SPANS, RECIPE, CaptureRequest
from safekey_interp.measures.attention import attention_table, rest_mass
from safekey_interp.measures.attention_summary import (
    QUANTITIES,
    HeadSums,
    TraceSummary,
    summarise_layers,
    summarise_trace,
)
from safekey_interp.models.encoding import Encoding

LAYERS = range(3)
KEYS = ["from_span", "to_span", "layer"]


def measured() -> list[tuple[Encoding, AttentionArrays]]:
    """Six traces, the last without an understanding."""
    model = tiny_model("gemma3_text")
    encodings = reference_forward.encodings(model, traces())
    short = traces(1)[0].with_(trace_id="t5", response="Hmm, no. I will not.")
    encodings.append(model.encode(short, reference_forward.segmentation(short, None, "Hmm, no.")))
    return [
        (entry.encoding, entry.attention) for entry in measure_batch(model, encodings, CaptureRequest(states=False))
    ]


@pytest.fixture(scope="module")
def arrays() -> list[tuple[Encoding, AttentionArrays]]:
    return measured()


@pytest.fixture(scope="module")
def tidy(arrays: list[tuple[Encoding, AttentionArrays]]) -> pd.DataFrame:
    table = pd.concat([attention_table(e.trace_id, a, LAYERS) for e, a in arrays], ignore_index=True)
    first = table[table["to_span"] == "first_token"].set_index(["trace_id", "layer", "head", "from_span"])["mass"]
    index = pd.MultiIndex.from_frame(table[["trace_id", "layer", "head", "from_span"]])
    # No sink: a row sums to 1. U's rows to the first token are not in the tidy table.
    table["off_first"] = 1 - first.reindex(index).to_numpy()
    table["rest"] = table["mass_rest"] * table["off_first"]
    # Summaries scale the random control to the share that the span would have if attention were even.
    even_key = {(e.trace_id, q): a.even_key[:, QUERY_SPANS.index(q)] for e, a in arrays for q in QUERY_SPANS}
    of_row = zip(table["trace_id"], table["from_span"], table["layer"], strict=True)
    each = np.array([even_key[trace, query][layer] for trace, query, layer in of_row])
    with np.errstate(divide="ignore", invalid="ignore"):
        table["random_mass"] *= table["uniform_mass"] / (table["n_random"] * each)
    return table


@pytest.fixture(scope="module")
def summaries(arrays: list[tuple[Encoding, AttentionArrays]]) -> list[TraceSummary]:
    return [summarise_trace(a) for _, a in arrays]


def test_a_span_with_the_first_token_has_the_rest_of_its_others(arrays: list[tuple[Encoding, AttentionArrays]]) -> None:
    of_trace = arrays[0][1]
    prompt, first = (of_trace.spans.columns.index(name) for name in ("prompt", "first_token"))
    mass, n_k, holds_first = of_trace.mass.copy(), of_trace.n_k.copy(), of_trace.holds_first.copy()
    mass[..., prompt] += mass[..., first]
    n_k[prompt], holds_first[prompt] = n_k[prompt] + 1, True
    joined = replace(of_trace, mass=mass, n_k=n_k, holds_first=holds_first)
    np.testing.assert_allclose(rest_mass(joined)[..., prompt], rest_mass(of_trace)[..., prompt], atol=1e-6)


def quantity_of(summaries: list[TraceSummary]):
    stacked = np.stack([summary.by_layer for summary in summaries])
    return lambda name: stacked[..., QUANTITIES.index(name)]


def test_a_trace_is_averaged_over_heads(summaries: list[TraceSummary], tidy: pd.DataFrame) -> None:
    means = tidy.groupby(["trace_id", *KEYS])[["mass", "uniform_mass", "random_mass", "matched_mass", "entropy"]].mean()
    for trace, summary in enumerate(summaries):
        for p, (q, k) in enumerate(RECIPE.pairs):
            for layer in LAYERS:
                values = summary.by_layer[layer, p]
                key = (f"t{trace}", QUERY_SPANS[q], KEY_SPANS[k], layer)
                if key not in means.index:
                    assert trace == 5
                    assert np.isnan(values[:4]).all()
                    continue
                for name in means.columns:
                    assert values[QUANTITIES.index(name)] == pytest.approx(means.loc[key, name], abs=1e-5, nan_ok=True)


@pytest.mark.parametrize(
    ("measure", "top", "bottom"),
    [
        ("mass", "mass", None),
        ("uniform_mass", "uniform_mass", None),
        ("random_mass", "random_mass", None),
        ("matched_mass", "matched_mass", None),
        ("entropy", "entropy", None),
        ("lift", "mass", "uniform_mass"),
        ("lift_over_random", "mass", "random_mass"),
        ("lift_over_matched", "mass", "matched_mass"),
        ("lift_over_matched_other", "mass", "matched_mass_other"),
        ("mass_rest", "rest", "off_first"),
    ],
)
def test_layers_equal_a_group_by(
    summaries: list[TraceSummary], tidy: pd.DataFrame, measure: str, top: str, bottom: str | None
) -> None:
    """Ratio of means over traces, a trace being the mean over its heads."""
    groups = ["a", "a", "b", "c", "c", "d"]
    subsets = {"all": np.ones(6, bool), "some": np.array([1, 0, 1, 0, 1, 1], bool)}
    found = summarise_layers(quantity_of(summaries), groups, subsets, LAYERS)
    found = found[found["measure"] == measure].set_index(["subset", *KEYS])
    assert set(found.index.get_level_values("subset")) == {"all", "some"}
    columns = list(dict.fromkeys([top, bottom or top]))
    for subset, chosen in subsets.items():
        kept = tidy[tidy["trace_id"].isin([f"t{i}" for i in np.flatnonzero(chosen)])].dropna(subset=columns)
        per_trace = kept.groupby(["trace_id", *KEYS])[columns].mean().reset_index()
        expected = per_trace.groupby(KEYS)[columns].sum()
        counts = per_trace.groupby(KEYS)["trace_id"].size()
        value = expected[top] / (counts if bottom is None else expected[bottom])
        compared = 0
        for key, row in found.loc[subset].iterrows():
            if key not in value.index:
                continue  # U's row total without the first token is not in the tidy table
            compared += 1
            assert row["value"] == pytest.approx(value[key], rel=1e-4, abs=1e-6, nan_ok=True)
            assert row["n"] == counts[key]
            traces_of = per_trace[(per_trace[KEYS] == list(key)).all(axis=1)]["trace_id"]
            assert row["n_groups"] == len({groups[int(trace[1:])] for trace in traces_of})
            assert np.isnan([row["low"], row["high"]]).all(), "four groups have no interval"
        # A distance-matched baseline is undefined where its reference rows do not reach.
        assert compared >= (6 if measure == "lift_over_matched_other" else 7) * len(LAYERS)


def test_intervals_count_whole_groups(summaries: list[TraceSummary]) -> None:
    quantity = quantity_of(summaries * 4)
    every, names = {"all": np.ones(24, bool)}, [f"g{i:02d}" for i in range(24)]
    few = summarise_layers(quantity, [f"g{i % 6}" for i in range(24)], every, LAYERS)
    assert np.isnan(few[["low", "high"]]).all(axis=None), "six groups have no interval"
    assert (few["n_groups"] <= 6).all()
    twice = summarise_layers(
        lambda name: np.concatenate([quantity(name)] * 2), names * 2, {"all": np.ones(48, bool)}, LAYERS
    )
    once = summarise_layers(quantity, names, every, LAYERS)
    for name in ("value", "low", "high"):
        np.testing.assert_allclose(once[name], twice[name], rtol=1e-6, atol=1e-9, err_msg="twins add no certainty")
    assert (twice["n"] == 2 * once["n"]).all()
    sure = once[(once["n_groups"] >= 10) & once["value"].notna()]
    assert (sure["low"] <= sure["value"] + 1e-9).all()
    assert (sure["value"] <= sure["high"] + 1e-9).all()
    assert (sure["high"] - sure["low"] > 0).any()
    pd.testing.assert_frame_equal(once, summarise_layers(quantity, names, every, LAYERS))


def test_the_order_of_traces_does_not_matter(summaries: list[TraceSummary]) -> None:
    order = [3, 0, 5, 1, 4, 2]
    straight = summarise_layers(quantity_of(summaries), list("aabbcd"), {"all": np.ones(6, bool)}, LAYERS)
    mixed = summarise_layers(
        quantity_of([summaries[i] for i in order]), ["aabbcd"[i] for i in order], {"all": np.ones(6, bool)}, LAYERS
    )
    pd.testing.assert_frame_equal(straight, mixed)


def test_an_empty_subset_has_no_rows(summaries: list[TraceSummary]) -> None:
    nobody = {"nobody": np.zeros(6, bool)}
    assert summarise_layers(quantity_of(summaries), list("abcdef"), nobody, LAYERS).empty


def test_layers_without_a_pattern_have_no_rows(summaries: list[TraceSummary]) -> None:
    blanked = [TraceSummary(s.by_layer.copy(), s.by_head) for s in summaries]
    for summary in blanked:
        summary.by_layer[1] = np.nan
    table = summarise_layers(quantity_of(blanked), list("abcdef"), {"all": np.ones(6, bool)}, LAYERS)
    assert set(table["layer"]) == {0, 2}


def test_heads_equal_a_group_by(summaries: list[TraceSummary], tidy: pd.DataFrame) -> None:
    sums = HeadSums()
    for i, summary in enumerate(summaries):
        sums.add(summary.by_head, ["all", "even"] if i % 2 == 0 else ["all"])
    table = sums.table(LAYERS)
    names = ["mass", "uniform_mass", "random_mass", "entropy"]
    for subset, numbers in (("all", range(6)), ("even", (0, 2, 4))):
        kept = tidy[tidy["trace_id"].isin([f"t{i}" for i in numbers])]
        expected = kept.groupby([*KEYS, "head"])[names].mean()
        counts = kept.groupby([*KEYS, "head"])["mass"].count()
        found = table[table["subset"] == subset].set_index([*KEYS, "head"])
        assert len(found) == len(RECIPE.pairs) * len(LAYERS) * 4
        for name in names:
            aligned = expected[name].reindex(found.index)
            np.testing.assert_allclose(found[name], aligned, rtol=1e-4, atol=1e-6, err_msg=name)
        assert (found["n"] == counts.reindex(found.index)).all()
        with np.errstate(invalid="ignore"):
            lift = np.where(found["uniform_mass"] > 0, found["mass"] / found["uniform_mass"], np.nan)
        np.testing.assert_allclose(found["lift"], lift)


def test_parts_of_the_traces_merge_to_the_whole(summaries: list[TraceSummary]) -> None:
    whole, first, second = HeadSums(), HeadSums(), HeadSums()
    for i, summary in enumerate(summaries):
        subsets = ["all", "late"] if i >= 4 else ["all"]
        whole.add(summary.by_head, subsets)
        (first if i < 3 else second).add(summary.by_head, subsets)
    merged = HeadSums()
    for part in (first, second):
        merged.merge(part.sums, part.counts)
    pd.testing.assert_frame_equal(whole.table(LAYERS), merged.table(LAYERS))
    before = first.table(LAYERS)
    assert not before.equals(merged.table(LAYERS)), "merging leaves the parts alone"
    pd.testing.assert_frame_equal(before, first.table(LAYERS))


def test_no_traces_have_an_empty_table() -> None:
    assert HeadSums().table(LAYERS).empty


def test_sums_are_in_c_order_whatever_the_order_of_the_values() -> None:
    """safetensors writes the memory of an array as it is."""
    sums = HeadSums()
    sums.add(np.asfortranarray(np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)), ["all"])
    assert sums.sums["all"].flags.c_contiguous
    assert sums.counts["all"].flags.c_contiguous
