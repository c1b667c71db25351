"""The distance-matched baseline: 1 for every attention that is distance alone, and a planted effect is found."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hand_set_attention import SHAPES, WINDOW, hand_set, made_trace
from tiny_models import tiny_model, traces

import safekey_interp as ski
from safekey_interp.capture.batch_runner import measure_batch
from safekey_interp.capture.batches import Batch
from safekey_interp.capture.capture_request import KEY_SPANS, QUERY_SPANS, CaptureRequest
from safekey_interp.capture.distance_baseline import find_baseline, matched_masses, on_device
from safekey_interp.capture.key_sets import query_rows
from safekey_interp.capture.reference_rows import prompt_rows
from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.models.encoding import Encoding
from safekey_interp.models.model import Model
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings
from safekey_interp.segmentation.segmenter import segmented

LENGTHS = {"short": (12, 10, 7), "middle": (45, 30, 20), "long": (220, 90, 40)}
"""Words of X, U and K."""
MODELS = {
    "full": {},
    "first-token sink": {"sink": 6.0},
    "window": {"window": WINDOW},
    "window and first-token sink": {"window": WINDOW, "sink": 6.0},
    "sink of the model": {"own_sink": 4.0},
}


def ratios(model: Model, made: list[Trace], **options: object) -> pd.DataFrame:
    """Each pair of spans that a mass falls on, with mass over both baselines."""
    table = ski.measure_attention(model, made, finder="given", **options)  # type: ignore[arg-type]
    seen = table[table["mass"] > 0]
    return seen.assign(
        ratio=seen["mass"] / seen["matched_mass"],
        other=seen["mass"] / seen["matched_mass_other"],
        shape=[list(SHAPES)[head] for head in seen["head"]],
    )


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", MODELS)
def test_attention_that_is_distance_alone_is_explained_whole(kind: str, length: str) -> None:
    """The law, over eight shapes: mass / matched_mass = 1, from K and the deciding token, to every span."""
    table = ratios(hand_set(**MODELS[kind]), [made_trace(*LENGTHS[length])])
    asked = table[(table["from_span"] != "understanding") & (table["to_span"] != "first_token")]
    assert asked["ratio"].notna().all(), "every span is reached in these traces"
    np.testing.assert_allclose(asked["ratio"], 1, atol=0.03)
    np.testing.assert_allclose(asked["other"].dropna(), 1, atol=0.03)
    decides = asked[asked["from_span"] == "decision"]
    assert set(decides["to_span"]) >= (
        {"understanding"} if "window" in kind else {"understanding", "prompt", "template"}
    )
    assert decides["other"].notna().all(), "K's rows reach every key of the deciding one"


@pytest.mark.parametrize("kind", MODELS)
def test_the_law_holds_for_spans_of_the_users_own(kind: str) -> None:
    made = made_trace(*LENGTHS["middle"])
    middle = made.given["understanding"]
    made = made.with_(spans={"some": [(middle.start, (middle.start + middle.end) // 2)]})
    queries = ["last(some) .. end", "after(some)", "sentence(0)"]
    table = ratios(hand_set(**MODELS[kind]), [made], queries=queries, keys=["prompt", "some", "token(3) .. token(30)"])
    assert set(table["from_span"]) == set(queries)
    compared = table.dropna(subset=["ratio"])
    assert {"last(some) .. end", "after(some)"} <= set(compared["from_span"])
    np.testing.assert_allclose(compared["ratio"], 1, atol=0.03)
    np.testing.assert_allclose(compared["other"].dropna(), 1, atol=0.03)


def test_the_shapes_are_told_apart() -> None:
    """The law would be empty if all heads were flat."""
    table = ratios(hand_set(), [made_trace(*LENGTHS["middle"])])
    on_u = table[(table["from_span"] == "decision") & (table["to_span"] == "understanding")].set_index("shape")["mass"]
    share = {
        name: shape(np.arange(30.0)).sum() / shape(np.arange(30 + 45 + 6 + 1.0)).sum() for name, shape in SHAPES.items()
    }
    for name in ("flat", "linear", "exponential", "ALiBi", "rising"):
        assert on_u[name] == pytest.approx(share[name], rel=0.05), name
    assert on_u["steep exponential"] > 0.95
    assert on_u["power law"] > 1.2 * on_u["flat"]


@pytest.mark.parametrize("options", [{"batch_size": 3}, {"backend": "bridge"}], ids=["together", "bridge"])
def test_batches_and_backends_agree(options: dict[str, object]) -> None:
    made = [made_trace(*words, trace_id=name) for name, words in LENGTHS.items()]
    model = hand_set(sink=3.0, planted=2.0)
    alone, other = ratios(model, made, batch_size=1), ratios(model, made, **options)
    for column in ("matched_mass", "matched_mass_other"):
        np.testing.assert_allclose(alone[column], other[column], atol=2e-6, equal_nan=True)


@pytest.mark.parametrize("planted", [0.5, 2.0])
@pytest.mark.parametrize("kind", MODELS)
def test_a_planted_effect_is_found(kind: str, planted: float) -> None:
    """Words of K give words of U so many times the weight: the odds of U, among what is compared, are as many times the
    baseline's."""
    table = ratios(hand_set(**MODELS[kind], planted=planted), [made_trace(60, 30, 2)])
    one = table[(table["from_span"] == "key_sentence") & (table["to_span"] != "first_token")]
    one = one.set_index(["shape", "to_span"])
    totals = one["mass"].groupby("shape").sum()
    for shape in SHAPES:
        mass, matched = one.loc[(shape, "understanding"), ["mass", "matched_mass"]]
        odds = (mass / (totals[shape] - mass)) / (matched / (totals[shape] - matched))
        assert odds == pytest.approx(planted, rel=0.05), shape
        assert (mass / matched > 1) == (planted > 1)


def test_a_content_effect_on_a_small_share_shows_its_factor() -> None:
    """Where U's share is small, mass / matched_mass is the planted factor itself."""
    table = ratios(hand_set(planted=2.0), [made_trace(250, 12, 5)])
    flat = table[(table["shape"] == "flat") & (table["from_span"] == "key_sentence")].set_index("to_span")
    assert flat.loc["understanding", "ratio"] == pytest.approx(2.0, rel=0.06)
    assert flat.loc["understanding", "other"] == pytest.approx(2.0, rel=0.06)
    assert flat.loc["prompt", "ratio"] < 1


def test_noise_does_not_shift_the_ratio() -> None:
    """In expectation, with what each key says on top of its distance drawn anew for each row."""
    encoding = encoded(hand_set(), made_trace(30, 20, 12))
    batch = Batch.of([encoding])
    rows = query_rows(batch.encodings, batch.starts)
    distance = rows.index[0][:, None] - np.arange(encoding.end)
    pattern = np.exp(np.random.default_rng(0).normal(-0.03 * distance, 1.0, (1500, *distance.shape))) * (distance >= 0)
    pattern[..., 0] *= 20
    pattern /= pattern.sum(-1, keepdims=True)
    of_u, other = (part[0].numpy() for part in found(encoding, pattern))
    for query in ("key_sentence", "decision"):
        q = QUERY_SPANS.index(query)
        for span in ("understanding", "prompt"):
            mass = np.einsum("r,hrk->h", rows.weights[0, q], pattern[..., list(encoding.positions(span))]).mean()
            for baseline in (of_u, other):
                expected = baseline[:, q, KEY_SPANS.index(span)].mean()
                assert np.isnan(expected) or mass / expected == pytest.approx(1, abs=0.03)


def test_it_is_the_product_limit_estimate_written_out() -> None:
    """Against loops over the whole eager pattern of a random model."""
    model = tiny_model("llama")
    encoding = model.encode(traces(3)[2])
    [measured] = measure_batch(model, [encoding], CaptureRequest(states=False))
    with torch.inference_mode():
        batch = Batch.of([encoding])
        before = model.hf.config._attn_implementation
        model.hf.set_attn_implementation("eager")
        attentions = model.hf(**batch.inputs("cpu"), output_attentions=True).attentions
        model.hf.set_attn_implementation(before)
    decision = encoding.positions("decision")[0]
    of_u = [row for row in encoding.positions("understanding") if row != decision]
    assert len(of_u) <= 32, "the law below reads every row of U"
    cases = [
        ("matched", "key_sentence", of_u),
        ("matched", "decision", of_u),
        ("matched_other", "key_sentence", list(prompt_rows(encoding))),
        ("matched_other", "decision", list(encoding.positions("key_sentence"))[:16]),
    ]
    for layer, pattern in enumerate(attentions):
        for column, query, references in cases:
            for span in ("understanding", "template"):
                value = getattr(measured.attention, column)[layer, :, QUERY_SPANS.index(query), KEY_SPANS.index(span)]
                expected = [_written_out(one.double().numpy(), encoding, query, span, references) for one in pattern[0]]
                np.testing.assert_allclose(value, expected, atol=1e-5)


def test_it_is_undefined_where_fewer_than_half_of_the_pairs_are_compared() -> None:
    """K is longer than all before U: fewer than half of the pairs of K and X are compared."""
    long_key = ratios(hand_set(sink=2.0), [made_trace(4, 6, 40)])
    on = long_key[long_key["from_span"] == "key_sentence"].groupby("to_span", observed=True)["ratio"]
    assert on.get_group("prompt").isna().all()
    assert on.get_group("key_sentence").notna().all()


def test_no_understanding_no_baseline() -> None:
    trace = made_trace(12, 0, 8)
    trace = trace.with_(response=trace.response.strip(), given={"key_sentence": CharSpan(0, len(trace.response) - 1)})
    table = ski.measure_attention(hand_set(), [trace], finder="given")
    assert table["matched_mass"].isna().all()


def test_from_the_understanding_there_is_none() -> None:
    table = ski.measure_attention(hand_set(), [made_trace(12, 10, 7)], finder="given")
    assert (
        table.loc[table["from_span"] == "understanding", ["matched_mass", "matched_mass_other"]].isna().all(axis=None)
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(side: str) -> None:
    model = hand_set()
    both = [encoded(model, made_trace(*LENGTHS[name])) for name in ("short", "middle")]
    stream = np.random.default_rng(0)
    patterns = []
    for encoding in both:
        n_rows = query_rows([encoding], [0]).index.shape[1]
        patterns.append(stream.dirichlet(np.ones(encoding.end), (1, n_rows)))
    batch = Batch.of(both, side=side)  # type: ignore[arg-type]
    rows = query_rows(batch.encodings, batch.starts)
    padded = np.zeros((2, 1, *rows.index.shape[1:], batch.input_ids.shape[1]))
    visible = np.zeros((2, rows.index.shape[1], padded.shape[-1]), bool)
    for b, (encoding, start, pattern) in enumerate(zip(both, batch.starts, patterns, strict=True)):
        seen = np.arange(encoding.end) <= (rows.index[b, : rows.n_rows[b]] - start)[:, None]
        patterns[b] = pattern * seen
        padded[b, :, : rows.n_rows[b], start : start + encoding.end] = patterns[b]
        visible[b, : rows.n_rows[b], start : start + encoding.end] = seen
    baseline = on_device(find_baseline(batch.encodings, batch.starts, rows, visible), torch.device("cpu"))
    together = matched_masses(torch.as_tensor(padded, dtype=torch.float32), baseline)
    for b, (encoding, pattern) in enumerate(zip(both, patterns, strict=True)):
        for mine, alone in zip(together, found(encoding, pattern), strict=True):
            np.testing.assert_allclose(mine[b], alone[0], atol=1e-6)


def encoded(model: Model, trace: Trace) -> Encoding:
    [(_, segmentation)] = segmented([trace], SegmentationSettings(finder="given"))
    return model.encode(trace, segmentation)


def found(encoding: Encoding, pattern: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Both baselines of a made pattern (head, row, k_pos) of one trace."""
    batch = Batch.of([encoding])
    rows = query_rows(batch.encodings, batch.starts)
    visible = np.arange(encoding.end) <= rows.index[..., None]
    baseline = on_device(find_baseline(batch.encodings, batch.starts, rows, visible), torch.device("cpu"))
    return matched_masses(torch.as_tensor(pattern, dtype=torch.float32)[None], baseline)


def _written_out(pattern: np.ndarray, encoding: Encoding, query: str, span: str, references: list[int]) -> float:
    """The docstring's formulas for one head, by loops."""
    furthest = max(references) - 1
    f, left = np.zeros(furthest + 1), 1.0
    for d in range(furthest, -1, -1):
        reach = [r for r in references if r - d >= 1]
        at = sum(pattern[r, r - d] for r in reach)
        up_to = sum(pattern[r, r - e] for r in reach for e in range(d + 1))
        f[d] = left * at / up_to
        left *= 1 - at / up_to
    keys, total, pairs, compared = set(encoding.positions(span)) - {0}, 0.0, 0, 0
    for q in encoding.positions(query):
        near = {k for k in range(1, q + 1) if q - k <= furthest}
        share = sum(f[q - k] for k in keys & near) / sum(f[q - k] for k in near)
        mine = {k for k in keys if k <= q}
        total += share * sum(pattern[q, k] for k in near) + sum(pattern[q, k] for k in mine - near)
        pairs, compared = pairs + len(mine), compared + len(mine & near)
    return total / len(encoding.positions(query)) if pairs and compared >= pairs / 2 else np.nan
