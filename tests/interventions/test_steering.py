"""A direction that is taken out is gone wherever the model reads it, and both ways to do so agree."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reference_forward
import tiny_models
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from safekey_interp.capture.architecture import find_layout
from safekey_interp.capture.layer_parts import layer_parts
from safekey_interp.capture.residual_edits import Edit, Place, ablate, edited, every_place
from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.data.conditions import FEW
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, RunError
from safekey_interp.generation.aha_score import measure_aha
from safekey_interp.generation.key_sentence_bank import GENERAL, KeySentences
from safekey_interp.interventions.cross_fitting import fit_folds, steer_held_out
from safekey_interp.interventions.directions import compare_directions, directions_of_head, fit_directions
from safekey_interp.interventions.effects import default_rows, summarise_effects
from safekey_interp.interventions.steering import steer, summarise_steering
from safekey_interp.measures.direction_record import Direction
from safekey_interp.models import organism
from safekey_interp.models.model import Model, from_hf, load
from safekey_interp.models.safety_head import HEAD_FILE, SafetyHead

SMALL = KeySentences(safe=GENERAL.safe[:2], go_ahead=GENERAL.go_ahead[1:4])
ALONE = ("isotropic",)
"""Controls of a direction that was not fitted on states."""
IDS = torch.arange(3, 33).reshape(2, 15)


@lru_cache
def toy() -> Model:
    return load("organism")


def shipped(**wanted: str) -> list[Trace]:
    every = organism.read_shipped()
    return [trace for trace in every if all(getattr(trace, name) == value for name, value in wanted.items())]


def unit(d_model: int, seed: int = 0) -> torch.Tensor:
    vector = torch.as_tensor(np.random.default_rng(seed).standard_normal(d_model), dtype=torch.float32)
    return vector / vector.norm()


def a_direction(model: Model, layer: int = 1, seed: int = 0) -> Direction:
    return Direction(vector=unit(model.d_model, seed).double().numpy(), norm=2.0, layer=layer, site="resid_post")


def ablation(vector: torch.Tensor) -> Edit:
    return lambda states: ablate(states, vector.expand(len(states), -1))


def states_of(model: Model) -> list[torch.Tensor]:
    """What every layer gives, as the model's own hidden states hold it, and what its attention adds."""
    seen: list[torch.Tensor] = []
    modules = [parts.attention.module for parts in layer_parts(model.hf) if parts.attention is not None]
    handles = [
        module.register_forward_hook(lambda _m, _a, out: seen.append(out if isinstance(out, torch.Tensor) else out[0]))
        for module in (*find_layout(model.hf).layers, *modules)
    ]
    with torch.no_grad():
        model.hf(input_ids=IDS, use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


def n_hooks(module: torch.nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


@pytest.mark.parametrize("architecture", [*tiny_models.ARCHITECTURES])
def test_what_is_ablated_is_nowhere_in_the_stream(architecture: str) -> None:
    model = tiny_models.tiny_model(architecture)
    vector = unit(model.d_model)
    with edited(model, {place: ablation(vector) for place in every_place(model)}):
        states = states_of(model)
    assert len(states) == 2 * model.n_layers
    for state in states:
        along = (state.double() @ vector.double()).abs()
        assert (along <= 1e-5 * state.double().norm(dim=-1)).all()
        assert along.max() < 1e-5 * max(1.0, float(state.norm(dim=-1).max()))
    assert max(float((state @ vector).abs().max()) for state in states_of(model)) > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("architecture", "options", "module", "scale"),
    [
        ("granite", {"residual_multiplier": 0.22}, "self_attn", 0.22),
        ("olmo2", {}, "post_attention_layernorm", 1.0),
        ("gpt_neox", {"use_parallel_residual": True}, "post_attention_dropout", 1.0),
    ],
)
def test_what_attention_writes_is_found_whatever_it_is_called(
    architecture: str, options: dict, module: str, scale: float, dtype: torch.dtype
) -> None:
    """GPT-NeoX's MLP stands beside its attention, so that nothing of the layer reads what that wrote."""
    hf = AutoModelForCausalLM.from_config(
        CONFIG_MAPPING[architecture](**(tiny_models.BASE | options)), dtype=dtype
    ).eval()
    names = {part: name.rpartition(".")[2] for name, part in hf.named_modules()}
    writes = [parts.attention for parts in layer_parts(hf)]
    assert [(names[write.module], write.scale) for write in writes if write is not None] == [(module, scale)] * 3
    assert all(parts.mlp is not None and parts.mlp.scale == scale for parts in layer_parts(hf))
    assert {parts.reader is None for parts in layer_parts(hf)} == {architecture == "gpt_neox"}
    model = from_hf(hf, tiny_models.byte_level_tokenizer(), spec=architecture)
    vector = unit(model.d_model)
    with edited(model, {place: ablation(vector) for place in every_place(model)}), torch.no_grad():
        states = hf(input_ids=IDS, output_hidden_states=True, use_cache=False).hidden_states[:-1]
    rounding = 1e-5 if dtype == torch.float32 else 2e-3
    for state in states[1:]:
        assert ((state.float() @ vector).abs() <= rounding * state.float().norm(dim=-1)).all()


def test_large_states_lose_the_component_too() -> None:
    vector = unit(4096)
    states = torch.randn(2, 3, 4096) * 1e-3 + 25_000 * vector
    left = ablate(states, vector.expand(2, -1))
    assert ((left.double() @ vector.double()).abs() < 1e-5 * states.double().norm(dim=-1)).all()
    half = ablate(states.bfloat16(), vector.expand(2, -1))
    assert half.dtype == torch.bfloat16
    assert ((half.double() @ vector.double()).abs() < 1e-5 * states.double().norm(dim=-1)).all()


@pytest.mark.parametrize("architecture", [*tiny_models.ARCHITECTURES])
def test_both_ways_to_edit_agree_at_every_place(architecture: str) -> None:
    model = tiny_models.tiny_model(architecture)
    vector = unit(model.d_model)
    edits: dict[Place, Edit] = {place: ablation(vector) for place in every_place(model)}
    moves: list[dict[Place, Edit]] = [
        {place: lambda states: states + 0.5 * vector} for place in [*every_place(model), Place(3, "ln_final")]
    ]
    with torch.no_grad():
        plain = model.hf(input_ids=IDS, use_cache=False).logits
        for one in (edits, *moves):
            with edited(model, one):
                ours = model.hf(input_ids=IDS, use_cache=False).logits
            with edited(model, one, backend="bridge"):
                theirs = model.bridge()(IDS, return_type="logits")
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
            assert (ours - plain).abs().max() > 1e-3
        torch.testing.assert_close(model.hf(input_ids=IDS, use_cache=False).logits, plain, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["hf", "bridge"])
def test_hooks_are_gone_after_an_exception(backend: str) -> None:
    model = tiny_models.tiny_model("gemma2")
    module = model.hf if backend == "hf" else model.bridge()
    before = n_hooks(module)

    def fail(states: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("on purpose")

    edits: dict[Place, Edit] = {place: fail for place in [*every_place(model), Place(3, "ln_final")]}
    with pytest.raises(RuntimeError, match="on purpose"), edited(model, edits, backend=backend):  # type: ignore[arg-type]
        module(IDS)
    assert n_hooks(module) == before


def test_a_place_that_is_not_there_is_refused() -> None:
    model = tiny_models.tiny_model("llama")
    for place, says in ((Place(3, "resid_post"), "0 to 2"), (Place(2, "ln_final"), "3 to 3")):
        with pytest.raises(InputError, match=says), edited(model, {place: lambda states: states}):
            pass


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt_oss"])
def test_a_baseline_is_the_unchanged_model_and_no_step_changes_nothing(architecture: str) -> None:
    model, traces = tiny_models.tiny_model(architecture), reference_forward.with_spans(3)
    table = steer(
        model, traces, a_direction(model), mode="add", scales=0, n_random=1, controls=ALONE, bank=SMALL, finder="given"
    )
    assert table["effect"].abs().max() < 1e-6
    aha = measure_aha(model, traces, bank=SMALL, finder="given")
    means = aha.groupby(["trace_id", "kind"])["logprob"].mean().unstack()
    for row in table.itertuples():
        if row.metric in ("safe", "go_ahead"):
            assert row.baseline == pytest.approx(means.loc[row.trace_id, row.metric], rel=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "mistral", "gpt_oss"])
@pytest.mark.parametrize("options", [{}, {"layers": [1]}, {"mode": "add", "positions": ["decision", "prompt"]}])
def test_the_bridge_gives_the_same_table(architecture: str, options: dict) -> None:
    """TransformerLens computes whole sequences: that one beginning for all sentences is right is checked, too."""
    model = tiny_models.tiny_model(architecture)
    given = {"n_random": 2, "controls": ALONE, "bank": SMALL, "finder": "given"} | options
    ours, theirs = (
        steer(model, reference_forward.with_spans(3), a_direction(model), backend=way, **given)
        for way in ("hf", "bridge")
    )
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-4, atol=1e-4)
    assert ours.loc[ours["control"] == "none", "effect"].abs().max() > 1e-3


def test_batches_do_not_matter() -> None:
    model = tiny_models.tiny_model("qwen2")
    drawn = {"n_random": 3, "controls": ALONE}
    tables = [
        steer(
            model,
            reference_forward.with_spans(3),
            a_direction(model),
            bank=SMALL,
            finder="given",
            batch_size=size,
            **drawn,
        )
        for size in ("auto", 1, 5)
    ]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], rtol=1e-4, atol=1e-5)


def test_the_organisms_refusal_hangs_on_a_direction_that_labels_single_out() -> None:
    """Fitted on some requests, tested on others. It is the first principal component, so that draws from the states'
    covariance contain most of it; directions fitted to shuffled labels, within the classes, and isotropic ones do not.
    """
    plain = shipped(source="plain")
    fitted = plain[:60]
    known = {trace.group for trace in fitted}
    by_group = {t.group: t for t in shipped(source="plain", label="harmful") if t.group not in known}
    held_out = list(by_group.values())[:FEW]
    directions = fit_directions(toy(), fitted, finder="given")
    assert [one.layer for one in directions] == [0, 1, 2, 3]
    every = ("shuffled_labels", "covariance", "isotropic")
    table = steer(toy(), held_out, directions[2], finder="given", controls=every, n_random=20)
    summary = summarise_steering(table).set_index(["subset", "metric", "control_kind"]).sort_index().sort_index()
    found = summary.loc[("harmful", "difference")]
    assert set(found.index) == set(every)
    assert (found["high"] < -1).all()
    assert found.loc["isotropic", "p_value"] == pytest.approx(1 / 21)
    assert abs(found.loc["isotropic", "control"]) < 0.3
    assert found.loc["shuffled_labels", "p_value"] == pytest.approx(1 / 21)
    assert found.loc["covariance", "control"] < -0.5
    assert (found["pc1_cosine"] > 0.9).all()
    assert (found["n"] == FEW).all()
    assert (found["n_groups"] == FEW).all()
    assert (found["n_controls"] == 20).all()
    added = summarise_steering(
        steer(toy(), held_out, directions[2], mode="add", scales=[-1, 1], controls=(), finder="given")
    ).set_index(["subset", "metric", "scale"])["value"]
    assert added["all", "difference", -1.0] < 0 < added["all", "difference", 1.0]


def test_every_request_is_steered_by_directions_that_do_not_know_it() -> None:
    chosen = shipped(source="plain")[:48]
    chosen[3] = chosen[3].with_(label=None)
    given = {"mode": "add", "scales": -1, "n_random": 1, "controls": "isotropic"}
    table = steer_held_out(toy(), chosen, fit_layers=[2], finder="given", n_folds=4, **given)
    assert list(dict.fromkeys(table["trace_id"])) == [trace.trace_id for trace in chosen if trace.label]
    assert table.attrs["left_out"] == {chosen[3].trace_id: "of neither class"}
    assert set(table["fold"]) == {0, 1, 2, 3}
    assert (table.groupby("group")["fold"].nunique() == 1).all()
    held_out = set(table.loc[table["fold"] == 1, "trace_id"])
    [direction] = fit_directions(toy(), [t for t in chosen if t.trace_id not in held_out], layers=[2], finder="given")
    alone = steer(toy(), [t for t in chosen if t.trace_id in held_out], direction, finder="given", **given)
    same = table[table["fold"] == 1].drop(columns="fold").reset_index(drop=True)
    pd.testing.assert_frame_equal(same, alone, rtol=1e-4, atol=1e-5)
    summary = summarise_steering(table).set_index(["subset", "metric"])
    assert summary.loc[("harmful", "difference"), "high"] < -1
    with pytest.raises(InputError, match=r"directions on held-out requests: .* benign"):
        steer_held_out(toy(), [t for t in chosen if t.label == "harmful"], finder="given")


def test_directions_are_differences_of_means_at_their_position() -> None:
    model, traces = tiny_models.tiny_model("llama"), reference_forward.with_spans(4)
    [direction] = fit_directions(model, traces, layers=[1], positions=["understanding_end"], finder="given")
    states = []
    for trace in traces:
        encoding = model.encode(trace, reference_forward.segmentation(trace))
        [end] = encoding.positions("understanding_end")
        assert end == encoding.positions("understanding")[-1]
        with torch.no_grad():
            out = model.hf(input_ids=encoding.input_ids[None], output_hidden_states=True)
        states.append(out.hidden_states[2][0, end].double().numpy())
    harmful = np.array([trace.label == "harmful" for trace in traces])
    expected = np.mean(np.array(states)[harmful], 0) - np.mean(np.array(states)[~harmful], 0)
    np.testing.assert_allclose(direction.norm * direction.vector, expected, rtol=1e-3, atol=1e-4)
    assert (direction.position, direction.site, direction.model) == ("understanding_end", "resid_post", "tiny-llama")
    with pytest.raises(InputError, match="position key_sentence: its words define the outcome"):
        fit_directions(model, traces, positions=["key_sentence"], label_by="aha")
    with pytest.raises(InputError, match=r"positions: got the text 'decision', expected a list such as \['decision'\]"):
        fit_directions(model, traces, positions="decision")
    with pytest.raises(InputError, match="positions: got none"):
        fit_directions(model, traces, positions=[])
    both = fit_directions(model, traces, layers=[1], positions=["decision", "understanding_end"], finder="given")
    assert [each.position for each in both] == ["decision", "understanding_end"]
    np.testing.assert_array_equal(both[1].vector, direction.vector)
    with pytest.raises(InputError, match="label_by"):
        fit_directions(model, traces, label_by="colour")


def test_a_heads_weights_are_directions(tmp_path: Path) -> None:
    head = SafetyHead(32)
    by_u, by_c = directions_of_head(head)
    np.testing.assert_allclose(by_u.norm * by_u.vector, head.understanding.weight[0].detach().numpy(), rtol=1e-6)
    assert (by_u.position, by_c.position, by_u.site, by_u.layer) == ("understanding", "context", "ln_final", -1)
    save_file(head.state_dict(), tmp_path / HEAD_FILE, {"theta": "0.5", "layer": "1"})
    saved, _ = directions_of_head(tmp_path)
    assert (saved.site, saved.layer) == ("resid_post", 1)
    saved.save(tmp_path / "u.safetensors")
    np.testing.assert_array_equal(Direction.load(tmp_path / "u.safetensors").vector, saved.vector)
    table = steer(
        tiny_models.tiny_model("llama"),
        reference_forward.with_spans(1),
        [by_u, saved],
        mode="add",
        bank=SMALL,
        finder="given",
        controls=ALONE,
        n_random=1,
    )
    assert set(table["site"]) == {"ln_final", "resid_post"}
    assert table["effect"].abs().min() > 0
    with torch.no_grad():
        head.context.weight.zero_()
    with pytest.raises(InputError, match="its path over context has no weights"):
        directions_of_head(head)


def test_cosines_between_layers_and_models() -> None:
    one, two = (Direction(vector=np.eye(400)[i], norm=1.0, layer=i, model="a") for i in (0, 1))
    both = Direction(vector=(one.vector + two.vector) / np.sqrt(2), norm=1.0, layer=2, model="a")
    narrow = Direction(vector=np.eye(3)[0], norm=1.0, model="b")
    table = compare_directions({"a": [one, two, both], "b": [narrow]}).set_index(["layer_a", "layer_b"])
    assert list(table["cosine"]) == pytest.approx([0, np.sqrt(0.5), np.sqrt(0.5)])
    assert table.loc[(0, 1), "p_value"] == pytest.approx(1)
    assert table.loc[(0, 2), "p_value"] < 1e-9
    assert table.loc[(0, 1), "random_high"] == pytest.approx(1.96 / 20, rel=0.01)
    assert compare_directions({"a": [one], "b": [narrow]}).attrs["left_out"] == {"a and b": "widths 400 and 3 differ"}


def test_summaries_are_means_with_their_controls() -> None:
    rows = [
        *(("a", "x", "harmful", "none", -1, 1.0), ("b", "x", "harmful", "none", -1, 3.0)),
        *(("c", "y", "benign", "none", -1, 5.0), ("d", "z", None, "none", -1, float("nan"))),
        *(("a", "x", "harmful", "drawn", draw, value) for draw, value in ((0, 0.0), (1, 4.0))),
        *(("b", "x", "harmful", "drawn", draw, value) for draw, value in ((0, 0.0), (1, 4.0))),
        *(("c", "y", "benign", "drawn", draw, value) for draw, value in ((0, 0.0), (1, 4.0))),
    ]
    table = pd.DataFrame(rows, columns=["trace_id", "group", "label", "control", "draw", "effect"]).assign(place="p")
    found = summarise_effects(table, ["place"]).set_index("subset")
    assert found.loc["all", "value"] == pytest.approx(3)
    assert found[["low", "high"]].isna().all(axis=None), "two groups have no interval"
    assert found.loc["all", "control"] == pytest.approx(2)
    assert found.loc["all", "excess"] == pytest.approx(1)
    assert found.loc["all", "p_value"] == pytest.approx(1), "both draws are further from the mean of 0, 3 and 4"
    assert list(found["n"]) == [3, 2, 1]
    assert list(found["n_groups"]) == [2, 1, 1]
    assert set(found["control_kind"]) == {"drawn"}


@pytest.mark.slow
def test_the_largest_over_places_is_of_the_draws_that_all_of_them_have() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        rows = [("a", place, "none", -1, value) for place, value in zip("pq", rng.normal(size=2), strict=True)]
        rows += [("a", place, "drawn", k, rng.normal()) for place, n in (("p", 20), ("q", 5)) for k in range(n)]
        table = pd.DataFrame(rows, columns=["trace_id", "place", "control", "draw", "effect"])
        found = summarise_effects(table.assign(group="x", label=None), ["place"], joint=())
        assert list(found["n_controls"]) == [20, 5]
        assert found["p_value_over_all"].between(1 / 6, 1).all()
        over_all = found["p_value_over_all"].to_numpy() * 6
        np.testing.assert_allclose(over_all, over_all.round())


def test_each_kind_of_control_has_a_row_the_default_first_and_a_place_without_any_has_one() -> None:
    rows = [
        *(("a", "p", "none", -1, 3.0), ("a", "q", "none", -1, 2.0)),
        *(("a", "p", "second", draw, 5.0) for draw in range(3)),
        *(("a", "p", "first", draw, float(draw)) for draw in range(2)),
    ]
    table = pd.DataFrame(rows, columns=["trace_id", "place", "control", "draw", "effect"]).assign(group="x", label=None)
    found = summarise_effects(table, ["place"], kinds=("first", "second"))
    assert list(found["control_kind"]) == ["first", "second", "none"]
    assert list(found["control"].fillna(-1)) == [0.5, 5, -1]
    assert list(found["excess"].fillna(-1)) == [2.5, -2, -1]
    assert list(found["n_controls"]) == [2, 3, 0]
    assert list(found["p_value"].fillna(-1)) == pytest.approx([1 / 3, 1 / 4, -1])
    assert list(default_rows(found)["control_kind"]) == ["first", "none"]
    old = table.assign(control=table["control"] != "none")
    with pytest.raises(InputError, match="expected 'none' for the tested rows"):
        summarise_effects(old, ["place"])
    with pytest.raises(RunError, match="run the intervention again"):
        default_rows(found.drop(columns="control_kind"))


def test_what_cannot_be_steered_is_refused_in_one_line() -> None:
    model, traces = tiny_models.tiny_model("llama"), reference_forward.with_spans(2)
    narrow = Direction(vector=np.eye(3)[0], norm=1.0, layer=0)
    unplaced = Direction(vector=np.eye(32)[0], norm=1.0)
    for direction, options, says in (
        (narrow, {}, "got width 3, expected the model's 32"),
        (unplaced, {"mode": "add"}, "no such layer"),
        (unplaced, {"mode": "turn"}, "mode: got 'turn'"),
        (unplaced, {"positions": ["last("]}, "span expression 'last\\('"),
        (unplaced, {"layers": [7]}, r"layers: got \[7\]"),
        (unplaced, {"n_random": -1}, "n_random"),
        ([], {}, "directions: got none"),
    ):
        with pytest.raises(InputError, match=says) as caught:
            steer(model, traces, direction, bank=SMALL, **options)
        assert "\n" not in str(caught.value)
    bare = traces[0].with_(trace_id="bare", response="", given={})
    table = steer(model, [bare, traces[1]], unplaced, bank=SMALL, finder="given", controls=())
    assert set(table["trace_id"]) == {traces[1].trace_id}
    assert list(table.attrs["left_out"]) == ["bare"]
    assert summarise_steering(table)["control"].isna().all()
    with pytest.raises(InputError, match=r"no trace has a key sentence .* trace bare: "):
        steer(model, [bare], unplaced, controls=(), bank=SMALL)


def test_a_trace_that_no_direction_can_be_fitted_on_is_left_out_with_its_reason() -> None:
    traces = [trace.with_(spans={"word": [(8, 12)]}) for trace in reference_forward.with_spans(16)]
    labelled = [trace.with_(label=("a", "b")[number % 2], group=f"g{number}") for number, trace in enumerate(traces)]
    labelled[3] = labelled[3].with_(spans={"word": [(10**6, 10**6 + 1)]})
    labelled[4] = labelled[4].with_(spans={})
    found = fit_folds(
        tiny_models.tiny_model("llama"), labelled, StreamSettings(finder="given"), fit_position="word", n_folds=2
    )
    assert set(found.left_out) == {labelled[3].trace_id, labelled[4].trace_id}
    assert "lies outside the response" in found.left_out[labelled[3].trace_id]
    assert found.left_out[labelled[4].trace_id].startswith("no token in word")
