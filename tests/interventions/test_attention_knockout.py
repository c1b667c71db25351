"""Attention knockout: the law against an eager forward with joined masks, its controls, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import reference_forward
import tiny_models
import torch

import safekey_interp as ski
from safekey_interp.capture.attention_mask import Cut, Knockout, knocked_out, part_of, sight_of
from safekey_interp.capture.batches import Batch
from safekey_interp.capture.capture_request import CaptureRequest
from safekey_interp.capture.recording import capture
from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.errors import InputError
from safekey_interp.interventions.attention_knockout import knockout
from safekey_interp.interventions.donors import find_donors
from safekey_interp.interventions.knockout_summary import summarise_knockout
from safekey_interp.models.model import Model
from safekey_interp.models.organism import read_shipped
from safekey_interp.segmentation.segmenter import segment

WINDOWED = ("mistral", "gemma3_text", "gemma2", "gpt_oss")
ARCHITECTURES = ("llama", "qwen2", "phi3", *WINDOWED)


def setting(architecture: str) -> tuple[Model, list[Any], list[Any]]:
    model = tiny_models.tiny_model(architecture)
    traces = reference_forward.with_spans(3)
    return model, traces, [model.encode(trace, segment(trace, finder="given")) for trace in traces]


def n_hooks(model: Model) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.hf.modules())


def key_logprob(model: Model, encoding: Any) -> float:
    k: Any = encoding.spans["key_sentence"]
    ids = encoding.input_ids[None, : encoding.end]
    logits = model.hf(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    return float(logits[k.start - 1 : k.end - 1].gather(-1, ids[0, k.start : k.end, None]).double().mean())


@pytest.mark.parametrize(
    ("to_span", "layers"), [("prompt", None), ("understanding", [0]), ("understanding", [1]), ("first_token", [0, 2])]
)
@pytest.mark.parametrize("from_span", ["key_sentence", "decision", "decision+key_sentence"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_equals_an_eager_forward_with_the_masks_joined(architecture: str, from_span, to_span, layers) -> None:
    model, traces, encodings = setting(architecture)
    table: Any = knockout(model, traces, from_span, to_span, layers=layers, aha=False, controls=(), finder="given")
    found = table[table["control"] == "none"].set_index("trace_id")
    for trace, encoding in zip(traces, encodings, strict=True):
        k, n = encoding.spans["key_sentence"], encoding.end
        rows = {
            "key_sentence": range(k.start, k.end),
            "decision": [k.start - 1],
            "decision+key_sentence": range(k.start - 1, k.end),
        }[from_span]
        hidden = torch.zeros((1, 1, n, n), dtype=torch.bool)
        for row in rows:
            hidden[0, 0, row, list(encoding.positions(to_span))] = True
        with torch.no_grad():
            plain = key_logprob(model, encoding)
            with reference_forward.joined_masks(model, hidden, range(model.n_layers) if layers is None else layers):
                cut = key_logprob(model, encoding)
        row = found.loc[trace.trace_id]
        assert row["baseline"] == pytest.approx(plain, abs=1e-4)
        assert row["value"] == pytest.approx(cut, abs=1e-4)
        assert row["effect"] == pytest.approx(cut - plain, abs=2e-4)
        assert row["n_q"] == len(rows)


@pytest.mark.parametrize(
    ("from_span", "to_span"),
    [
        ("key_sentence", "key_sentence"),
        ("key_sentence", "last(key_sentence)"),
        ("last(key_sentence)", "prompt"),
        ("decision+key_sentence", "understanding+key_sentence"),
    ],
)
@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma3_text"])
def test_the_last_token_of_k_counts_among_queries_and_keys_although_it_predicts_nothing(
    architecture: str, from_span, to_span
) -> None:
    model, traces, encodings = setting(architecture)
    chosen: dict[str, Any] = {"controls": ("dose", "resample_other_label"), "n_dose": 1, "n_donors": 1}
    table: Any = knockout(model, traces, from_span, to_span, aha=False, finder="given", **chosen)
    assert table["value"].notna().any()
    found = table[table["control"] == "none"].set_index("trace_id")
    for trace, encoding in zip(traces, encodings, strict=True):
        queries, keys = (list(encoding.positions(span)) for span in (from_span, to_span))
        n = encoding.end
        hidden = torch.zeros((1, 1, n, n), dtype=torch.bool)
        for query in queries:
            hidden[0, 0, query, keys] = True
        with torch.no_grad(), reference_forward.joined_masks(model, hidden, range(model.n_layers)):
            cut = key_logprob(model, encoding)
        row = found.loc[trace.trace_id]
        assert row["value"] == pytest.approx(cut, abs=1e-4)
        assert row["n_q"] == len(queries)
        seen = [key for key in keys if key <= queries[-1]]
        assert row["n_k"] == len(seen) or architecture in WINDOWED


@contextmanager
def knocked_out_on_bridge(model: Model, knockout: Knockout) -> Iterator[Any]:
    """The same for every forward of ``model.bridge()``, by TransformerLens's hooks: an independent implementation."""
    bridge = model.bridge()

    def cut(layer: int) -> Any:
        def hide(scores: torch.Tensor, hook: Any) -> torch.Tensor:
            return scores.masked_fill(knockout.hidden(layer, scores), torch.finfo(scores.dtype).min)

        return hide

    names = {layer: f"blocks.{layer}.attn.hook_attn_scores" for layer in sorted(knockout.layers)}
    with bridge.hooks(fwd_hooks=[(name, cut(layer)) for layer, name in names.items() if name in bridge.hook_dict]):
        yield bridge


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma3_text"])
def test_one_head_is_cut_and_the_bridge_agrees(architecture: str) -> None:
    model, _, encodings = setting(architecture)
    encoding = encodings[0]
    k: Any = encoding.spans["key_sentence"]
    ids = encoding.input_ids[None, : encoding.end]

    def cut(draw: int | None) -> Knockout:
        where: Any = {"queries": tuple(range(k.start, k.end)), "keys": tuple(encoding.positions("understanding"))}
        places: Any = {"layers": frozenset({1, 2}), "heads": frozenset({3})}
        return Knockout([Cut(trace_id="t", draw=draw, **where, **places)], n_heads=model.n_heads)

    for draw in (None, 0):
        with torch.inference_mode():
            plain = model.hf(input_ids=ids, use_cache=False).logits
            with knocked_out(model, cut(draw)):
                hooked = model.hf(input_ids=ids, use_cache=False).logits
            with knocked_out_on_bridge(model, cut(draw)) as bridge:
                bridged = bridge(ids, return_type="logits")
        torch.testing.assert_close(hooked, bridged, atol=1e-4, rtol=1e-4)
        # Where the window holds nothing but U, there is no key that could be drawn.
        assert draw == 0 or (hooked - plain).abs().max() > 1e-3
        torch.testing.assert_close(hooked[:, : k.start], plain[:, : k.start], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_cut_has_no_mass_where_it_is_cut(architecture: str) -> None:
    model, _, encodings = setting(architecture)
    batch = Batch.of(encodings)
    cuts = [
        Cut(
            trace_id=e.trace_id,
            queries=tuple(e.positions("key_sentence")),
            keys=tuple(e.positions("understanding")),
            layers=frozenset({1}),
            heads=frozenset({0, 2}),
        )
        for e in encodings
    ]
    request = CaptureRequest(states=False, token_weights=True)
    with (
        torch.inference_mode(),
        knocked_out(model, Knockout(cuts, n_heads=model.n_heads)),
        capture(model, batch, request) as captured,
    ):
        model.hf(**batch.inputs(model.device))
    for row, encoding in enumerate(encodings):
        u = list(encoding.positions("understanding"))
        weights = [captured.attention[layer].token_weights[row, :, 0][:, u].sum(-1) for layer in (0, 1, 2)]  # type: ignore[index]
        assert weights[1][[0, 2]].tolist() == [0.0, 0.0]
        assert (weights[1][[1, 3]] > 0).all()
        assert (weights[0] > 0).all()
        assert (weights[2] > 0).all()


def test_nothing_cut_changes_nothing_and_nothing_stays_behind() -> None:
    model, _, encodings = setting("mistral")
    ids = encodings[0].input_ids[None]
    where: Any = {"queries": (5, 6), "keys": (), "layers": frozenset({0, 1})}
    before, hooks = dict(model.hf.config.to_dict()), n_hooks(model)
    with torch.inference_mode():
        plain = model.hf(input_ids=ids, use_cache=False).logits
        with knocked_out(model, Knockout([Cut(trace_id="t", **where)], n_heads=model.n_heads)):
            torch.testing.assert_close(model.hf(input_ids=ids, use_cache=False).logits, plain, atol=1e-6, rtol=1e-6)
        cut = Knockout([Cut(trace_id="t", **where | {"keys": (2, 3)})], n_heads=model.n_heads)
        with pytest.raises(RuntimeError, match="in the middle"), knocked_out(model, cut):
            raise RuntimeError("in the middle")
        assert torch.equal(model.hf(input_ids=ids, use_cache=False).logits, plain)
    assert model.hf.config.to_dict() == before
    assert n_hooks(model) == hooks


def test_a_random_set_is_of_keys_in_sight_outside_every_tested_span() -> None:
    cut = Cut(
        trace_id="t",
        queries=(20, 21),
        keys=tuple(range(10, 14)),
        layers=frozenset({0}),
        draw=0,
        avoid=tuple(range(3, 14)),
    )
    whole = np.arange(30) <= 20
    window = whole & (np.arange(30) > 11)
    for seen, n in ((whole, 4), (window, 2)):
        sets = [sight_of(replace(cut, draw=draw), seen, seed=3).keys for draw in range(200)]
        assert {len(one) for one in sets} == {n}
        assert all(len(set(one)) == n for one in sets)
        allowed = set(np.flatnonzero(seen)) - set(cut.keys) - set(cut.avoid) - {0, 20, 21}
        assert set(np.concatenate(sets)) == allowed, "every key in sight is drawn sooner or later, and no other"
        again = sight_of(cut, seen, seed=3)
        assert (again.n_span, again.n_pool) == (n, len(allowed))
        assert again.keys.tolist() == sets[0].tolist()
        assert any(sight_of(cut, seen, seed=seed).keys.tolist() != again.keys.tolist() for seed in range(4, 8))
        assert any(
            sight_of(replace(cut, trace_id=name), seen, 3).keys.tolist() != again.keys.tolist() for name in "abcd"
        )


def test_a_pool_that_is_smaller_than_the_span_gives_no_set() -> None:
    where: Any = {"trace_id": "t", "queries": (9,), "layers": frozenset({0}), "draw": 0}
    seen = np.arange(12) <= 9
    for n_span, n_drawn in ((4, 4), (5, 0), (8, 0)):
        found = sight_of(Cut(keys=tuple(range(9 - n_span, 9)), **where), seen, seed=0)
        assert (len(found.keys), found.n_span, found.n_pool) == (n_drawn, n_span, 8 - n_span)


def test_parts_of_a_draw_lie_in_one_another_and_are_the_share_that_they_name() -> None:
    cut = Cut(trace_id="t", queries=(40,), keys=tuple(range(10, 21)), layers=frozenset({0}), draw=0)
    sizes = []
    for draw in range(400):
        parts = [set(part_of(replace(cut, draw=draw, dose=dose), seed=1)) for dose in (0.25, 0.5, 0.75)]
        assert parts[0] < parts[1] < parts[2] < set(cut.keys)
        sizes.append([len(part) for part in parts])
    np.testing.assert_allclose(np.mean(sizes, axis=0) / 11, [0.25, 0.5, 0.75], atol=0.01)
    members = np.concatenate([part_of(replace(cut, draw=draw, dose=0.25), seed=1) for draw in range(400)])
    assert set(members) == set(cut.keys)


def test_places_and_controls_stand_in_one_table() -> None:
    model, traces, encodings = setting("llama")
    options: dict[str, Any] = {"by": "layer", "window": 2, "n_random": 3, "n_dose": 2, "n_donors": 1}
    table: Any = knockout(model, traces, finder="given", **options)
    assert sorted(set(zip(table["layer"], table["n_layers"], strict=True))) == [(0, 2), (1, 2)]
    assert set(table["metric"]) == {"difference", "safe", "go_ahead", "key_sentence"}
    kinds = ["none", "outside_spans", "dose", "resample_same_label", "resample_other_label"]
    assert list(table["control"].unique()) == kinds
    draws = table.groupby(["control", "dose"])["draw"].unique().map(sorted).to_dict()
    assert draws == {
        ("none", 1.0): [-1],
        ("outside_spans", 1.0): [0, 1, 2],
        **{("dose", dose): [0, 1] for dose in (0.25, 0.5, 0.75)},
        ("resample_same_label", 1.0): [0],
        ("resample_other_label", 1.0): [0],
    }
    for trace, encoding in zip(traces, encodings, strict=True):
        mine = table[table["trace_id"] == trace.trace_id]
        spans = {span: list(encoding.positions(span)) for span in ("prompt", "understanding", "template")}
        n_pool = encoding.positions("key_sentence")[0] - 1 - len(spans["prompt"]) - len(spans["understanding"])
        assert set(mine["n_pool"]) == {n_pool}
        for span in ("prompt", "understanding"):
            rows = mine[mine["to_span"] == span]
            n = len(spans[span])
            outside = rows[rows["control"] == "outside_spans"]
            if n_pool < n:
                assert outside["effect"].isna().all()
                assert outside["draw"].eq(0).all()
            else:
                assert (outside["n_k"] == n).all()
                assert outside["effect"].notna().all()
            sizes = rows[rows["control"] == "dose"].groupby("dose")["n_k"]
            for dose, (low, high) in sizes.agg(["min", "max"]).iterrows():
                assert np.floor(dose * n) <= low <= high <= np.ceil(dose * n)
    donors = {trace.trace_id: trace for trace in traces}
    swapped = table[table["donor"] != ""]
    for trace_id, donor, kind in set(zip(swapped["trace_id"], swapped["donor"], swapped["control"], strict=True)):
        assert (donors[trace_id].label == donors[donor].label) == (kind == "resample_same_label")
        assert donors[trace_id].group != donors[donor].group
    # The one harmful trace has no other of its label.
    alone = table[(table["trace_id"] == "t1") & (table["control"] == "resample_same_label")]
    assert alone["effect"].isna().all()
    assert len(alone) == 2 * 2 * 4
    by_head: Any = knockout(model, traces, to_span="prompt", by="head", heads=[1, 2], aha=False, controls=())
    assert set(zip(by_head["layer"], by_head["head"], strict=True)) == {(i, h) for i in range(3) for h in (1, 2)}
    assert set(by_head["control"]) == {"none"}


def test_a_tested_span_is_never_drawn_from_and_a_short_pool_is_said() -> None:
    model, traces, _ = setting("llama")
    options: dict[str, Any] = {"controls": ("outside_spans",), "aha": False, "n_random": 4, "finder": "given"}
    alone: Any = knockout(model, traces, to_span="first_token", **options)
    both: Any = knockout(model, traces, to_span=("first_token", "template"), **options)
    assert alone.loc[alone["control"] == "outside_spans", "effect"].notna().all()
    narrower = both[both["to_span"] == "first_token"]
    assert (narrower["n_pool"].to_numpy() < alone["n_pool"].iloc[0]).all(), "the template is tested, too"
    hidden = both[both["to_span"] == "template"]
    assert hidden.loc[hidden["control"] == "outside_spans", "effect"].isna().all()
    summary: Any = summarise_knockout(both)
    row = summary[(summary["to_span"] == "template") & (summary["subset"] == "all")].iloc[0]
    assert np.isfinite(row["value"])
    assert np.isnan([row["control"], row["excess"], row["p_value"]]).all()
    assert (row["control_kind"], row["n_with_control"], row["n"]) == ("none", 0, 3)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_numbers_do_not_depend_on_the_other_traces_or_their_order(architecture: str) -> None:
    model = tiny_models.tiny_model(architecture)
    traces = reference_forward.with_spans(6)
    options: dict[str, Any] = {"n_random": 2, "n_dose": 1, "n_donors": 1, "finder": "given", "aha": False}
    others = find_donors(model, traces, StreamSettings(finder="given"))
    keys = ["trace_id", "to_span", "control", "dose", "draw", "metric"]
    whole: Any = knockout(model, traces, others=others, **options)
    parts = [knockout(model, [trace], others=others, **options) for trace in reversed(traces)]
    one_by_one: Any = pd.concat(parts, ignore_index=True)
    first, second = (table.set_index(keys).sort_index() for table in (whole, one_by_one))
    pd.testing.assert_frame_equal(first, second, rtol=1e-4, atol=1e-5)
    options["seed"] = 7
    other: Any = knockout(model, traces, others=others, **options)
    drawn = whole["control"] == "dose"
    assert (other.loc[drawn, "effect"] - whole.loc[drawn, "effect"]).abs().max() > 1e-4


def test_a_trace_in_its_own_place_changes_nothing() -> None:
    model = ski.load("organism:sft")
    traces = list(read_shipped())[:3]
    # Under other names, so that each trace finds itself: the only one of its length.
    others = [
        donor._replace(group=f"other {donor.group}")
        for donor in find_donors(model, traces, StreamSettings(finder="given"))
    ]
    for trace, own in zip(traces, others, strict=True):
        table: Any = knockout(
            model, [trace], "decision+key_sentence", controls=("resample_same_label",), n_donors=1, others=[own]
        )
        swapped = table[table["control"] == "resample_same_label"]
        assert len(swapped) == 8
        assert swapped["effect"].abs().max() < 1e-5


def planted(*, by_dose: float, by_label: float, at_random: float, n: int = 24) -> pd.DataFrame:
    """Effects of a share of U (``by_dose`` times it), of the other label's U and of random keys, with noise."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for number in range(n):
        about = {"trace_id": f"t{number}", "group": f"g{number // 2}", "label": "harmful", "from_span": "key_sentence"}
        about |= {"to_span": "understanding", "layer": 0, "n_layers": 4, "head": -1, "n_k": 8, "n_pool": 9}
        about |= {"metric": "difference"}
        size = 1 + 0.2 * rng.normal()
        means = [("none", 1.0, -1, by_dose)]
        means += [("dose", dose, draw, dose * by_dose) for dose in (0.25, 0.5, 0.75) for draw in range(3)]
        means += [("outside_spans", 1.0, draw, at_random) for draw in range(20)]
        means += [("resample_same_label", 1.0, draw, 0.0) for draw in range(2)]
        means += [("resample_other_label", 1.0, draw, by_label) for draw in range(2)]
        for kind, dose, draw, mean in means:
            what = {"control": kind, "dose": dose, "draw": draw, "donor_group": ""}
            if kind.startswith("resample"):
                what["donor_group"] = f"{kind[9]}{rng.integers(12)}"
            rows.append(about | what | {"effect": size * mean + 0.05 * rng.normal()})
    return pd.DataFrame(rows)


def summary_of(table: pd.DataFrame) -> Any:
    summary: Any = summarise_knockout(table)
    return summary[summary["subset"] == "harmful"].set_index(["measure", "dose", "control_kind"])


def test_a_planted_effect_is_found_by_every_control() -> None:
    found = summary_of(planted(by_dose=1.0, by_label=-0.8, at_random=0.1))
    beside = found.loc["effect", 1.0, "outside_spans"]
    assert beside["excess_low"] > 0.7
    assert beside["p_value"] == pytest.approx(1 / 21)
    slope, bend = found.loc["dose_slope", 1.0, "none"], found.loc["dose_curvature", 1.0, "none"]
    assert slope["value"] == pytest.approx(1.0, abs=0.1)
    assert slope["low"] > 0.8
    assert bend["low"] < 0 < bend["high"]
    contrast = found.loc["other_minus_same", 1.0, "none"]
    assert contrast["value"] == pytest.approx(-0.8, abs=0.1)
    assert contrast["high"] < -0.6
    assert np.isnan(found.loc["effect", 1.0, "resample_other_label"]["p_value"]), "donors are no null of hiding"
    steps = [found.loc["effect", dose, "none"]["value"] for dose in (0.25, 0.5, 0.75)]
    np.testing.assert_allclose(steps, [0.25, 0.5, 0.75], atol=0.05)


def test_a_planted_null_is_found_by_none() -> None:
    """Any keys hidden do the same, however many, and every request's span the same."""
    table = planted(by_dose=0.0, by_label=0.0, at_random=0.0)
    constant = table["control"].isin(["none", "dose", "outside_spans"])
    table.loc[constant, "effect"] += 0.6
    found = summary_of(table)
    beside = found.loc["effect", 1.0, "outside_spans"]
    assert beside["low"] > 0.5, "hiding does something"
    assert beside["excess_low"] < 0 < beside["excess_high"]
    assert beside["p_value"] > 0.05
    for measure in ("dose_slope", "other_minus_same"):
        row = found.loc[measure, 1.0, "none"]
        assert row["low"] < 0 < row["high"], measure
    assert found.loc["dose_curvature", 1.0, "none"]["high"] < 0, "a quarter does as much as all"


@pytest.mark.slow
def test_what_is_peculiar_to_a_few_donors_is_no_effect_of_their_label() -> None:
    """Donors differ, labels do not: the contrast's interval leaves 0 out in about 5 % of draws, not in most.

    More than 6 of 40 have a probability of 0.3 % at 5 %, and of 99.99 % at 40 %."""
    false = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        table: Any = planted(by_dose=0.0, by_label=0.0, at_random=0.0)
        table = table[table["control"].isin(["none", "resample_same_label", "resample_other_label"])]
        own = {name: rng.normal() for name in sorted(set(table["donor_group"]))}
        table = table.assign(
            effect=table["effect"] + table["donor_group"].map(own).where(table["donor_group"] != "", 0.0)
        )
        row = summarise_knockout(table).set_index(["measure", "subset"]).loc["other_minus_same", "harmful"]
        false += not row["low"] < 0 < row["high"]
    assert false <= 6


def test_p_and_excess_are_those_of_the_traces_with_the_control() -> None:
    table = planted(by_dose=1.0, by_label=0.0, at_random=0.0)
    without = table["trace_id"].isin([f"t{number}" for number in range(12)]) & (table["control"] == "outside_spans")
    table.loc[without, "effect"] = np.nan
    # Where there is no control, hiding does far more; that must not count against the draws.
    far = table["trace_id"].isin([f"t{number}" for number in range(12)]) & (table["control"] == "none")
    table.loc[far, "effect"] += 50
    row = summary_of(table).loc["effect", 1.0, "outside_spans"]
    assert (row["n"], row["n_with_control"]) == (24, 12)
    assert row["value"] > 20
    assert row["excess"] == pytest.approx(1.0, abs=0.2)
    nothing = table.assign(effect=table["effect"].where(table["control"] != "none", 0.0))
    nothing.loc[far, "effect"] = 50
    assert summary_of(nothing).loc["effect", 1.0, "outside_spans"]["p_value"] > 0.05


def test_the_aha_difference_is_the_one_that_is_measured_without_cuts() -> None:
    model, traces = ski.load("organism:sft"), list(read_shipped())[:4]
    table: Any = knockout(model, traces, "decision", "prompt", controls=(), finder="given")
    measured: Any = ski.measure_aha(model, traces, finder="given")
    kinds: Any = measured.groupby(["trace_id", "kind"], observed=True)["logprob"].mean().unstack()
    expected = kinds["safe"] - kinds["go_ahead"]
    mine = table[table["metric"] == "difference"]
    for trace_id, aha in zip(mine["trace_id"], mine["baseline"], strict=True):
        assert aha == pytest.approx(expected[trace_id], abs=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"from_span": "prmpt"}, "span 'prmpt': no trace has one; did you mean 'prompt'"),
        ({"to_span": "before(answer"}, "to_span: span expression 'before\\(answer': got the end"),
        ({"to_span": "random"}, "span 'random': no trace has one"),
        ({"metric": "likelihood"}, "metric: got 'likelihood', expected one of aha, key_sentence, logprob"),
        ({"to_span": ()}, "to_span: got none"),
        ({"layers": [7]}, "layer"),
        ({"heads": [9]}, "heads: got 9, expected from 0 to 3"),
        ({"by": "token"}, "by: got 'token'"),
        ({"by": "layer", "window": 5}, "window: got 5, expected from 1 to 3"),
        ({"window": 2}, "window: got 2"),
        ({"n_random": 0}, "n_random: got 0"),
        ({"n_dose": 0}, "n_dose: got 0"),
        ({"n_donors": 0}, "n_donors: got 0"),
        (
            {"controls": ("random",)},
            "controls: got 'random', expected some of outside_spans, dose, resample_same_label",
        ),
        ({"seed": -1}, "seed: got -1"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for(options: dict[str, Any], words: str) -> None:
    model, traces, _ = setting("llama")
    with pytest.raises(InputError, match=words):
        knockout(model, traces, finder="given", **options)


def test_traces_without_a_key_sentence_are_named() -> None:
    model, traces, _ = setting("llama")
    bare = ski.Trace(trace_id="bare", prompt="Why?", response="")
    table: Any = knockout(model, [*traces, bare], aha=False, controls=(), finder="given")
    assert "bare" in table.attrs["left_out"]
    with pytest.raises(InputError, match=r"no trace has a key sentence.*bare"):
        knockout(model, [bare], finder="given")
