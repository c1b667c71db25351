"""The tidy table: every figure by its definition, from whole patterns computed by transformers alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import reference_forward
import torch
from tiny_models import ARCHITECTURES, tiny_model, traces

from safekey_interp.capture.batch_runner import measure_batch
from safekey_interp.capture.capture_request import KEY_SPANS, QUERY_SPANS, CaptureRequest
from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.errors import InputError, ModelError
from safekey_interp.measures.attention import attention_table, measure_attention, rest_mass
from safekey_interp.measures.published_attention import paper_attention

COLUMNS = [
    "trace_id",
    "layer",
    "head",
    "from_span",
    "to_span",
    "mass",
    "mass_rest",
    "uniform_mass",
    "lift",
    "random_mass",
    "matched_mass",
    "matched_mass_other",
    "entropy",
    "n_q",
    "n_k",
    "n_random",
]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return measure_attention(tiny_model("llama"), reference_forward.with_spans(), finder="given")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_mass_is_the_sum_of_output_attentions(architecture: str) -> None:
    """The bar: to 1e-5, and rest, lift and entropy by their definitions from the same patterns."""
    model = tiny_model(architecture)
    given = reference_forward.with_spans(3)
    table = measure_attention(model, given, finder="given")
    for trace in given:
        encoding = model.encode(trace, reference_forward.segmentation(trace))
        with torch.no_grad():
            patterns = reference_forward.forward(model, encoding, attn="eager").patterns
        mine = table[table["trace_id"] == trace.trace_id]
        assert len(mine) == model.n_layers * model.n_heads * 11
        for row in mine.itertuples():
            pattern = patterns[row.layer][row.head]
            rows = pattern[list(encoding.positions(row.from_span))]
            keys = list(encoding.positions(row.to_span))
            assert row.mass == pytest.approx(float(rows[:, keys].sum(-1).mean()), abs=1e-5)
            total = rows[:, 1:].sum(-1).mean()
            rest = rows[:, [k for k in keys if k]].sum(-1).mean()
            if row.to_span == "first_token":
                assert np.isnan(row.mass_rest)
            elif total > 1e-3:
                assert row.mass_rest == pytest.approx(float(rest / total), abs=1e-3)
            if row.uniform_mass > 0:
                assert row.lift == pytest.approx(row.mass / row.uniform_mass, rel=1e-5)
            else:
                assert np.isnan(row.lift), "out of sight"
            assert (row.n_q, row.n_k) == (len(encoding.positions(row.from_span)), len(keys))


def test_columns_and_pairs(table: pd.DataFrame) -> None:
    assert list(table.columns) == COLUMNS
    pairs = set(zip(table["from_span"], table["to_span"], strict=True))
    expected = {(q, k) for q in ("key_sentence", "decision") for k in KEY_SPANS} | {("understanding", "prompt")}
    assert pairs == expected
    assert not table.duplicated(["trace_id", "layer", "head", "from_span", "to_span"]).any()
    assert list(table["trace_id"].unique()) == [trace.trace_id for trace in traces()], "in file order"
    assert table.attrs == {"left_out": {}, "layers_without_pattern": [], "n_layers": 3, "style": "paper"}
    for name in ("mass", "uniform_mass", "random_mass"):
        assert table[name].between(0, 1 + 1e-6).all()
    # The control for distance is a rate times a count, and undefined where the rows of U do not reach.
    assert (table["matched_mass"].dropna() >= 0).all()
    assert table.loc[table["from_span"] == "understanding", "matched_mass"].isna().all()
    assert table.loc[table["to_span"] == "understanding", "matched_mass"].notna().all()
    assert (table["entropy"] >= -1e-5).all()
    assert (table["n_random"] <= table["n_k"]).all()


def test_masses_of_one_row_sum_to_no_more_than_one(table: pd.DataFrame) -> None:
    rows = table[table["from_span"] == "decision"]
    totals = rows.groupby(["trace_id", "layer", "head"], observed=True)["mass"].sum()
    assert totals.max() <= 1 + 1e-5


def test_sinks_leave_less_than_one() -> None:
    table = measure_attention(tiny_model("gpt_oss"), reference_forward.with_spans(2), finder="given")
    rows = table[table["from_span"] == "decision"]
    assert rows.groupby(["trace_id", "layer", "head"], observed=True)["mass"].sum().max() < 1


def test_some_layers_are_the_same_rows_of_all(table: pd.DataFrame) -> None:
    last = measure_attention(tiny_model("llama"), reference_forward.with_spans(), layers=[-1], finder="given")
    assert set(last["layer"]) == {2}
    expected = table[table["layer"] == 2].reset_index(drop=True)
    pd.testing.assert_frame_equal(last, expected, check_categorical=False, atol=1e-6)
    with pytest.raises(InputError, match="layers: got"):
        measure_attention(tiny_model("llama"), reference_forward.with_spans(), layers=[3])


def test_the_order_and_the_batch_change_nothing(table: pd.DataFrame) -> None:
    again = measure_attention(tiny_model("llama"), reference_forward.with_spans()[::-1], finder="given", batch_size=2)
    keys = ["trace_id", "layer", "head", "from_span", "to_span"]
    a, b = (
        t.astype({key: str for key in ("trace_id", "from_span", "to_span")}).sort_values(keys).reset_index(drop=True)
        for t in (table, again)
    )
    pd.testing.assert_frame_equal(a, b, atol=1e-5, rtol=1e-4)


def test_the_seed_moves_the_controls_alone(table: pd.DataFrame) -> None:
    other = measure_attention(tiny_model("llama"), reference_forward.with_spans(), finder="given", seed=1, n_random=25)
    assert not np.allclose(table["random_mass"], other["random_mass"])
    for name in ("mass", "uniform_mass", "entropy", "n_random"):
        np.testing.assert_allclose(table[name], other[name], atol=1e-6)
    for wrong in ({"n_random": 0}, {"seed": -1}):
        with pytest.raises(InputError):
            measure_attention(tiny_model("llama"), reference_forward.with_spans(), finder="given", **wrong)


def test_the_bridge_gives_the_same_table(table: pd.DataFrame) -> None:
    bridged = measure_attention(tiny_model("llama"), reference_forward.with_spans(), finder="given", backend="bridge")
    pd.testing.assert_frame_equal(table, bridged, atol=1e-4, rtol=0)


def test_what_is_left_out_is_named() -> None:
    given = reference_forward.with_spans(2)
    blank = Trace(trace_id="blank", prompt="How?", response=" ")
    alone = Trace(trace_id="alone", prompt="How?", response="")
    long = given[1].with_(trace_id="long", prompt="How do I open a door? " * 300)
    table = measure_attention(tiny_model("llama"), [given[0], blank, alone, long], finder="given")
    assert set(table["trace_id"]) == {"t0"}
    left_out = table.attrs["left_out"]
    assert list(left_out) == ["blank", "alone", "long"]
    assert "no key sentence" in left_out["blank"]
    assert "no response" in left_out["alone"]
    assert "past 512 tokens" in left_out["long"]


def test_prompts_alone_have_no_attention_to_measure() -> None:
    prompts = [Trace(trace_id=f"p{i}", prompt="How do I open a door?", response="") for i in range(2)]
    with pytest.raises(InputError, match=r"no trace has a sentence whose attention can be measured; trace p0: no resp"):
        measure_attention(tiny_model("llama"), prompts)
    with pytest.raises(InputError, match="no trace can be measured"):
        measure_attention(tiny_model("llama"), [])


def test_a_model_without_a_readable_pattern_is_refused() -> None:
    from other_architectures import REFUSED, small

    with pytest.raises(ModelError, match="attention interface"):
        measure_attention(small("bloom", REFUSED["bloom"][0]), reference_forward.with_spans(1), finder="given")


def test_layers_of_linear_attention_are_rows_of_nan() -> None:
    from other_architectures import HYBRIDS, small

    options, without = HYBRIDS["qwen3_next"]
    table = measure_attention(small("qwen3_next", options), reference_forward.with_spans(2), finder="given")
    assert table.attrs["layers_without_pattern"] == list(without)
    lacking = table["layer"].isin(without)
    assert table.loc[lacking, ["mass", "uniform_mass", "lift", "random_mass", "entropy"]].isna().all(axis=None)
    assert table.loc[~lacking, "mass"].notna().all()
    assert (table.loc[lacking, "n_random"] == 0).all()


def test_a_trace_without_an_understanding_has_no_rows_of_it() -> None:
    trace = traces(1)[0].with_(response="Hmm, no. I will not.", given={"key_sentence": CharSpan(0, 8)})
    table = measure_attention(tiny_model("llama"), [trace], finder="given")
    assert "understanding" not in set(table["to_span"]) | set(table["from_span"])


def test_the_default_finder_measures_the_traces_at_hand() -> None:
    done: list[int] = []
    table = measure_attention(tiny_model("llama"), traces(3), on_batch=done.append)
    assert table["trace_id"].nunique() + len(table.attrs["left_out"]) == 3
    assert sum(done) == 3


def test_rest_is_undefined_where_the_first_token_takes_all() -> None:
    model = tiny_model("llama")
    encoding = reference_forward.encodings(model, traces(1))[0]
    arrays = measure_batch(model, [encoding], CaptureRequest(states=False))[0].attention
    first = KEY_SPANS.index("first_token")
    taken = arrays.mass.copy()
    taken[...] = 0
    taken[..., first] = 1
    from dataclasses import replace

    nothing_left = replace(arrays, mass=taken, total=np.ones_like(arrays.total))
    assert np.isnan(rest_mass(nothing_left)).all()
    rest = rest_mass(arrays)
    assert np.isnan(rest[..., first]).all()
    others = [t for t in range(len(KEY_SPANS)) if t != first]
    assert ((rest[..., others] >= -1e-6) & (rest[..., others] <= 1 + 1e-6)).all()


def test_the_table_of_a_trace_is_its_arrays() -> None:
    model = tiny_model("llama")
    encoding = reference_forward.encodings(model, traces(1))[0]
    arrays = measure_batch(model, [encoding], CaptureRequest(states=False))[0].attention
    table = attention_table("x", arrays, range(model.n_layers))
    for row in table.itertuples():
        q, k = QUERY_SPANS.index(row.from_span), KEY_SPANS.index(row.to_span)
        assert row.mass == arrays.mass[row.layer, row.head, q, k]
        assert row.uniform_mass == arrays.uniform[row.layer, q, k]
        assert row.random_mass == arrays.random[row.layer, row.head, q, k]
        assert row.matched_mass == pytest.approx(arrays.matched[row.layer, row.head, q, k], abs=0, nan_ok=True)
        assert row.entropy == arrays.entropy[row.layer, row.head, q]
        assert (row.n_q, row.n_k, row.n_random) == (arrays.n_q[q], arrays.n_k[k], arrays.n_random[row.layer, q, k])


def test_the_papers_figure_by_hand(table: pd.DataFrame) -> None:
    """Last layer, mean over heads, sum over the span, mean over K's tokens, mean over traces."""
    model = tiny_model("llama")
    by_hand = {"prompt": [], "understanding": []}
    for trace in reference_forward.with_spans():
        encoding = model.encode(trace, reference_forward.segmentation(trace))
        with torch.no_grad():
            last = reference_forward.forward(model, encoding, attn="eager").patterns[-1].mean(0)
        for span, values in by_hand.items():
            values.append(float(reference_forward.mass(last[None], encoding, "key_sentence", span)))
    figure = paper_attention(table).set_index("to_span")
    assert list(figure.index) == ["prompt", "understanding"]
    for span, values in by_hand.items():
        assert figure.loc[span, "mass"] == pytest.approx(np.mean(values), abs=1e-6)
        assert np.isnan(figure.loc[span, ["low", "high"]].to_numpy(float)).all(), "five traces have no interval"
        assert figure.loc[span, "n"] == 5
        assert figure.loc[span, "layer"] == 2
        assert 0 < figure.loc[span, "uniform_mass"] < 1


def test_the_papers_interval_draws_groups(table: pd.DataFrame) -> None:
    rows = table.astype({"trace_id": str})
    many = pd.concat([rows.assign(trace_id=rows["trace_id"] + f" {k}") for k in range(4)], ignore_index=True)
    names = list(dict.fromkeys(many["trace_id"]))
    alone, pairs = (pd.Series(groups, index=names) for groups in (names, [name.split()[0] for name in names]))
    assert (paper_attention(many, alone)["high"] > paper_attention(many, alone)["low"]).all()
    assert paper_attention(many, pairs)[["low", "high"]].isna().all(axis=None), "five groups have no interval"
    with pytest.raises(KeyError):
        paper_attention(many, pairs.drop("t3 0"))  # a trace of no group, not one of a group called nan


def test_the_released_reading_has_no_template_and_half_the_response() -> None:
    model = tiny_model("llama")
    long, short = reference_forward.with_spans(2)
    long = long.with_(response=long.response + " " * len(long.response))
    found = measure_attention(model, [long, short], finder="given", style="released")
    assert set(found.attrs["left_out"]) == {short.trace_id}, "its K ends behind the half"
    encoding = model.encode(long, reference_forward.segmentation(long), rendering="released")
    assert encoding.text == long.prompt + long.response[: len(long.response) // 2]
    with torch.no_grad():
        pattern = reference_forward.forward(model, encoding, attn="eager").patterns[-1].mean(0)
    figure = paper_attention(found, style="released").set_index("to_span")
    for span in ("prompt", "understanding"):
        expected = float(reference_forward.mass(pattern[None], encoding, "key_sentence", span))
        assert figure.loc[span, "mass"] == pytest.approx(expected, abs=1e-6)


def test_the_papers_figure_without_first_token_and_template(table: pd.DataFrame) -> None:
    last = table[(table["layer"] == 2) & (table["from_span"] == "key_sentence")]
    wide = last.groupby(["trace_id", "to_span"], observed=True)["mass"].mean().unstack()
    figure = paper_attention(table).set_index("to_span")
    for span in ("prompt", "understanding"):
        rest = wide[span] / (1 - wide["first_token"])  # rows sum to 1: no sink
        text = wide[span] / (1 - wide["first_token"] - wide["template"])
        assert figure.loc[span, "mass_rest"] == pytest.approx(rest.mean(), rel=1e-4)
        assert figure.loc[span, "mass_text"] == pytest.approx(text.mean(), rel=1e-4)
        assert figure.loc[span, "mass"] < figure.loc[span, "mass_rest"] < figure.loc[span, "mass_text"]


def test_a_table_of_the_other_style_is_refused(table: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="style='released'"):
        paper_attention(table, style="released")
    with pytest.raises(InputError, match="expected 'paper' or 'released'"):
        paper_attention(table, style="mine")  # type: ignore[arg-type]
