"""Query-mask modelling behind another request's prompt: the literal forward, drawn from the seed and the step alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import reference_forward
import torch
import torch.nn.functional as F
from killed_processes import n_changes
from killed_training import assert_same_run, fresh_model, rows, settings, train_in_child, trained, weights
from test_losses import fresh, gradients, head_of

from safekey_interp.errors import InputError
from safekey_interp.models import organism
from safekey_interp.models.model import load
from safekey_interp.segmentation.segmenter import segment
from safekey_interp.training import loss_terms
from safekey_interp.training.batch import collate
from safekey_interp.training.examples import Examples, prepare_examples
from safekey_interp.training.other_prompts import OtherPrompts, second_pass
from safekey_interp.training.query_mask import exact_way

pytestmark = pytest.mark.slow


def prepared(model: Any, tmp_path: Path, **changes: Any) -> Examples:
    return prepare_examples(model, rows(), settings(tmp_path, **changes))


@pytest.mark.parametrize("way", ["short", "packed"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3_text", "gpt_oss"])
def test_the_loss_is_the_literal_one(architecture: str, way) -> None:
    """A plain forward of each trace with the other's prompt in place of its own; every token of K counts."""
    model = fresh(architecture)
    head, traces = head_of(model), reference_forward.with_spans(4)
    others = [*traces[1:], traces[0]]
    terms = loss_terms(model, head, traces, query_mask=way, other_prompts=others, finder="given")
    nats = []
    for trace, other in zip(traces, others, strict=True):
        swapped = trace.with_(prompt=other.prompt)
        encoding = model.encode(swapped, segment(swapped, finder="given"))
        key = list(encoding.positions("key_sentence"))
        logits = model.hf(input_ids=encoding.input_ids[None], use_cache=False).logits[0]
        nats.append(F.cross_entropy(logits[[k - 1 for k in key]], encoding.input_ids[key], reduction="none"))
    wanted = torch.cat(nats).mean()
    torch.testing.assert_close(terms.query_mask, wanted, rtol=1e-5, atol=1e-5)
    ours, theirs = gradients(terms.query_mask, model, head), gradients(wanted, model, head)
    assert ours.keys() == theirs.keys()
    whole = torch.stack([g.norm() for g in theirs.values()]).norm()
    assert whole > 0
    assert all((ours[name] - g).norm() <= 1e-5 * whole for name, g in theirs.items())
    masked = loss_terms(model, head, traces, query_mask=way, finder="given")
    assert masked.lm == terms.lm
    assert masked.query_mask != terms.query_mask


@pytest.mark.parametrize("way", ["short", "packed"])
def test_traces_in_one_row_have_the_same_loss(way) -> None:
    model = fresh("llama")
    head, traces = head_of(model), reference_forward.with_spans(4)
    apart, packed = (
        loss_terms(model, head, traces, query_mask=way, other_prompts=traces[::-1], packing=on, finder="given")
        for on in (False, True)
    )
    torch.testing.assert_close(apart.query_mask, packed.query_mask, rtol=1e-5, atol=1e-5)


def test_its_own_prompt_gives_the_loss_with_the_prompt_in_sight() -> None:
    """The planted null: where the other prompt is the trace's own, the loss is kw's."""
    model = fresh("llama")
    traces = reference_forward.with_spans(4)
    encodings = [model.encode(trace, segment(trace, finder="given")) for trace in traces]
    batch = collate(encodings, [None] * 4, prompts=encodings)
    from safekey_interp.training.batch_loss import BatchLoss

    sums = BatchLoss(model.hf, None, weighs_key=True)(batch)
    torch.testing.assert_close(sums.query_mask, sums.key, rtol=1e-5, atol=1e-4)
    assert batch.counts.key_tokens == batch.counts.visible_key_tokens


@pytest.mark.parametrize("name", ["tiny", "organism"])
def test_the_tokens_are_those_of_the_tokenizer(tmp_path: Path, name: str) -> None:
    """Another's prompt and the trace's own response, cut and joined, are what the tokenizer makes of both at once."""
    if name == "tiny":
        model, traces, finder = fresh_model(), rows(), "given"
    else:
        model = load("organism:base", device="cpu")
        traces, finder = [trace for trace, _ in zip(organism.read_shipped(), range(60), strict=False)], "rules"
    examples = prepare_examples(model, traces, settings(tmp_path, finder=finder)).train
    others = OtherPrompts(examples, seed=1, limit=256)
    of_id = {trace.trace_id: trace for trace in traces}
    n_drawn = 0
    for example in examples:
        partner = others.partner(example, step=3)
        if partner is None or not len(example.encoding.positions("key_sentence")):
            continue
        n_drawn += 1
        trace, other = of_id[example.trace_id], of_id[partner.trace_id]
        literally = model.encode(trace.with_(prompt=other.prompt), segment(trace, finder=finder))
        batch = collate([example.encoding], [None], prompts=[partner])
        assert batch.query is not None
        assert torch.equal(batch.query.input_ids[0], literally.input_ids[: literally.end])
        assert batch.query.targets[0].nonzero().flatten().tolist() == list(literally.positions("key_sentence"))
    assert n_drawn > 10


def test_a_partner_is_of_another_group_of_any_label_and_new_in_each_step(tmp_path: Path) -> None:
    examples = prepared(fresh_model(), tmp_path).train
    paired = [replace(one, group=f"pair {number // 2}") for number, one in enumerate(examples)]
    group = {one.trace_id: one.group for one in paired}
    label = {one.trace_id: one.label for one in paired}
    others = OtherPrompts(paired, seed=1, limit=10_000)
    again = OtherPrompts(paired[::-1], seed=1, limit=10_000)
    seen: Counter[str] = Counter()
    labels: Counter[str | None] = Counter()
    for step in range(200):
        partner = others.partner(paired[0], step)
        assert partner is not None
        assert group[partner.trace_id] != paired[0].group
        same = again.partner(paired[0], step)
        assert same is not None
        assert same.trace_id == partner.trace_id, "the order of the file is no matter"
        seen[partner.trace_id] += 1
        labels[label[partner.trace_id]] += 1
    assert len(seen) == len(paired) - 2, "every other trace is drawn"
    assert {"harmful", "benign"} <= set(labels)
    other_seed = OtherPrompts(paired, seed=2, limit=10_000)
    drawn = [[of.partner(paired[0], step) for step in range(20)] for of in (others, other_seed)]
    assert [one.trace_id for one in drawn[0] if one] != [one.trace_id for one in drawn[1] if one]


def test_a_prompt_that_leaves_no_room_or_ends_otherwise_is_not_drawn(tmp_path: Path) -> None:
    examples = prepared(fresh_model(), tmp_path).train
    one = examples[0]
    need = one.encoding.end - one.encoding.response_start
    lengths = sorted(other.encoding.response_start for other in examples if other is not one)
    limit = need + lengths[3]
    others = OtherPrompts(examples, seed=1, limit=limit)
    partners = [others.partner(one, step) for step in range(60)]
    assert {p.response_start for p in partners if p} <= set(lengths[:4])
    assert others.longest(one) == lengths[3]
    assert others.mean_length(one) == pytest.approx(
        sum(x for x in lengths if x <= lengths[3]) / sum(x <= lengths[3] for x in lengths)
    )
    none = OtherPrompts(examples, seed=1, limit=need + 1)
    assert none.partner(one, 0) is None
    assert (none.has_partner(one), none.mean_length(one), none.longest(one)) == (False, 0.0, 0)
    alone = OtherPrompts([replace(other, group="all") for other in examples], seed=1, limit=10_000)
    assert alone.partner(replace(one, group="all"), 0) is None
    ids = one.encoding.input_ids.clone()
    ids[one.encoding.response_start - 1] += 1
    odd = replace(one, encoding=replace(one.encoding, input_ids=ids))
    assert OtherPrompts([odd, *examples[1:]], seed=1, limit=10_000).partner(odd, 0) is None
    batch = collate([odd.encoding, examples[1].encoding], [None] * 2, prompts=[None, one.encoding])
    assert batch.query is not None
    assert len(batch.query.input_ids) == 1
    assert batch.counts.key_tokens == len(examples[1].encoding.positions("key_sentence"))


def test_the_cost_is_what_is_read(tmp_path: Path) -> None:
    config = settings(tmp_path, query_prompt="other")
    examples = prepared(fresh_model(), tmp_path).train
    told = second_pass(config, examples, 10_000, "short")
    assert told is not None
    others = OtherPrompts(examples, seed=config.seed, limit=10_000)
    read = []
    for step in range(200):
        batch = collate(
            [e.encoding for e in examples], [None] * len(examples), prompts=[others.partner(e, step) for e in examples]
        )
        assert batch.query is not None
        read.append(sum(int(row.nonzero().max()) + 1 for row in batch.query.targets))
        assert batch.query.input_ids.shape[1] <= told.longest
    assert told.tokens == pytest.approx(sum(read) / len(read), rel=0.02)
    assert (told.n, told.n_without_partner) == (len(examples), 0)
    masked = second_pass(settings(tmp_path), examples, 10_000, "short")
    assert masked is not None
    assert masked.tokens < told.tokens
    assert second_pass(config, examples, 10_000, None) is None


def test_a_run_with_other_prompts_is_another_run_and_goes_on_to_the_bit(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "killed"
    options = {"query_prompt": "other", "log_gradient_norms_every": 2, "head_learning_rate": None}
    assert train_in_child(whole, **options) == 0
    assert train_in_child(out, kill_at=int(0.6 * n_changes(whole)), **options) == -9
    assert (out / "checkpoints").is_dir()
    assert train_in_child(out, **options) == 0
    assert_same_run(whole, out)
    other = trained(tmp_path / "masked", head_learning_rate=None)
    one, two = weights(whole), weights(other.path)
    assert any(not torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("changes", [{"query_mask": "packed"}, {"micro_batch_size": 4}, {"packing": True}], ids=str)
def test_how_a_step_is_cut_changes_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    first, second = (
        weights(trained(tmp_path / name, fresh_model(dropout=0.0), query_prompt="other", **more).path)
        for name, more in (("one", {}), ("other", changes))
    )
    for name, tensor in first.items():
        assert (tensor - second[name]).norm() <= 1e-4 * tensor.norm() + 1e-7, name


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="query_mask: got masked, which hides a prompt that query_prompt=other shows"):
        settings(tmp_path, query_prompt="other", query_mask="masked")
    model, traces = fresh("llama"), reference_forward.with_spans(2)
    with pytest.raises(InputError, match="other_prompts: got 1, expected one for each of 2 traces"):
        loss_terms(model, head_of(model), traces, other_prompts=traces[:1], finder="given")
    with pytest.raises(InputError, match="masked with other prompts"):
        collate([], [], layout="masked", prompts=[])
    assert exact_way(fresh("gpt2").hf, "short", shows_other=True) == ("short", "")
