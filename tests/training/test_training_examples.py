"""What is trained on is what was generated, whole, with the end of its turn; whole groups are held out."""

from __future__ import annotations

import pytest
import tokenizers_in_memory
from killed_training import fresh_model, rows, settings
from tiny_models import byte_level_tokenizer, tiny_model

from safekey_interp.data.trace import CharSpan
from safekey_interp.errors import InputError
from safekey_interp.models.model import load
from safekey_interp.training.config import TrainingConfig
from safekey_interp.training.examples import Examples, end_of_turn, prepare_examples
from safekey_interp.training.memory import Shape, check_memory, estimate, gigabytes, shape_of


def prepared(n: int = 20, **changes: object) -> Examples:
    return prepare_examples(fresh_model(), rows(n), settings("out", **changes))  # type: ignore[arg-type]


def test_an_example_is_the_trace_as_encoded_and_the_end_of_the_turn() -> None:
    model, data = fresh_model(), rows()
    [end] = end_of_turn(model.tokenizer)
    assert model.tokenizer.convert_ids_to_tokens(end) == "<|im_end|>"
    examples = prepare_examples(model, data, settings("out"))  # type: ignore[arg-type]
    by_id = {trace.trace_id: trace for trace in data}
    assert len(examples.train) + len(examples.held_out) == 20
    for example in (*examples.train, *examples.held_out):
        alone = model.encode(by_id[example.trace_id])
        assert example.encoding.input_ids.tolist() == [*alone.input_ids.tolist(), end]
        assert example.encoding.spans == alone.spans
        assert example.label == by_id[example.trace_id].label


def test_a_response_that_ends_its_turn_is_left_as_it_is() -> None:
    [trace, *_] = rows(1)
    ended = trace.with_(response=f"{trace.response}<|im_end|>")
    data = [trace, ended.with_(trace_id="ended"), *rows(20)[1:]]
    examples = prepare_examples(fresh_model(), data, TrainingConfig(held_out=0.0, finder="given"))
    one, other = examples.train[:2]
    assert one.encoding.input_ids.tolist() == other.encoding.input_ids.tolist()


def test_ends_of_turns() -> None:
    tokenizer = byte_level_tokenizer()
    for name, make in tokenizers_in_memory.TOKENIZERS.items():
        for token in end_of_turn(make()):
            assert token in make().added_tokens_decoder, name
    import copy

    other = copy.deepcopy(tokenizer)
    other.chat_template = None
    assert end_of_turn(other) == (other.eos_token_id,)
    other.chat_template = "{{ raise_exception('no') }}"
    assert end_of_turn(other) == (other.eos_token_id,)
    other.chat_template = "{% for m in messages %}{{ m.content.split('</think>')[-1] }}<|im_start|>{% endfor %}"
    assert end_of_turn(other) == (other.convert_tokens_to_ids("<|im_start|>"),)
    assert end_of_turn(load("organism:base").tokenizer) == (load("organism:base").tokenizer.eos_token_id,)


def test_nothing_is_ever_cut() -> None:
    """The reference cut on the left, which shifted tokens and masks, and left the spans where they were."""
    whole = prepared(held_out=0.0)
    lengths = sorted(len(example.encoding.input_ids) for example in whole.train)
    limit = lengths[10]
    examples = prepared(held_out=0.0, max_length=limit)
    assert max(len(example.encoding.input_ids) for example in examples.train) == limit
    kept = {example.trace_id: example for example in examples.train}
    for example in whole.train:
        if example.trace_id in kept:
            assert kept[example.trace_id].encoding.input_ids.tolist() == example.encoding.input_ids.tolist()
    n = sum(length > limit for length in lengths)
    [entry] = examples.report["left_out"]
    assert (entry["why"], entry["n"]) == (f"longer than {limit} tokens", n)


def test_a_prompt_is_tokenised_once_with_one_beginning() -> None:
    """The reference rendered a prompt and tokenised it again, with a second beginning of sequence."""
    model = fresh_model()
    for example in prepared().train:
        ids = example.encoding.input_ids.tolist()
        assert ids.count(model.tokenizer.bos_token_id) == 1
        assert ids[0] == model.tokenizer.bos_token_id


def test_groups_are_held_out_whole_and_of_both_classes() -> None:
    data = [trace.with_(group=f"g{i // 2}", label=("harmful", "benign")[i // 2 % 2]) for i, trace in enumerate(rows())]
    config = settings("out", held_out=0.4)  # type: ignore[arg-type]
    examples = prepare_examples(fresh_model(), data, config)
    train, held_out = ({e.group for e in part} for part in (examples.train, examples.held_out))
    assert not train & held_out
    assert len(held_out) == 4
    assert {e.label for e in examples.held_out} == {"harmful", "benign"}
    again = prepare_examples(fresh_model(), data[::-1], config)
    assert {e.group for e in again.held_out} == held_out, "whatever the order"
    other = prepare_examples(fresh_model(), data, settings("out", held_out=0.4, seed=1))  # type: ignore[arg-type]
    assert {e.group for e in other.held_out} != held_out


def test_shuffled_labels_keep_groups_together_and_the_balance() -> None:
    data = [trace.with_(group=f"g{i // 2}", label=("harmful", "benign")[i // 2 % 2]) for i, trace in enumerate(rows())]
    shuffled = prepare_examples(fresh_model(), data, settings("out", shuffled_labels=True))  # type: ignore[arg-type]
    labels: dict[str, set[str | None]] = {}
    for example in shuffled.train:
        labels.setdefault(example.group, set()).add(example.label)
    assert all(len(found) == 1 for found in labels.values())
    true = {trace.trace_id: trace.label for trace in data}
    changed = [example for example in shuffled.train if example.label != true[example.trace_id]]
    assert len(changed) == shuffled.report["n_labels_shuffled"] > 0
    assert all(example.label == true[example.trace_id] for example in shuffled.held_out)


def test_spans_that_came_with_the_data_are_compared_with_those_that_were_found() -> None:
    data = rows()
    moved = data[0].given["key_sentence"]
    data[0] = data[0].with_(given=dict(data[0].given) | {"key_sentence": CharSpan(moved.start, moved.end + 10)})
    data[1] = data[1].with_(given={"key_sentence": CharSpan(3, 9_999)})
    examples = prepare_examples(fresh_model(), data, TrainingConfig(finder="rules"))
    given = examples.report["given"]
    assert given["traces"] == 20
    assert given["outside"] == 1
    assert given["same_key_sentence"] <= 18
    with pytest.raises(InputError, match=r"trace row 1: given key_sentence \[3, 9999\) lies outside the response of"):
        prepare_examples(fresh_model(), data, TrainingConfig(finder="given"))


def test_memory_grows_with_what_is_asked_and_shrinks_with_what_helps() -> None:
    model = tiny_model("llama")
    config = TrainingConfig()
    shape = shape_of(model, config)
    assert shape.n_parameters == shape.n_trained == sum(p.numel() for p in model.hf.parameters())
    base = estimate(shape, config, longest=512)
    assert base.optimizer == 2 * base.gradients == 2 * base.weights
    assert estimate(shape, config, longest=1024).activations > base.activations
    lean = estimate(shape, TrainingConfig(gradient_checkpointing=True), longest=512)
    assert lean.activations < base.activations
    lora = TrainingConfig(lora_rank=4)
    assert estimate(shape_of(model, lora), lora, longest=512).optimizer < base.optimizer
    assert estimate(shape, config, longest=512, sharded_over=8).total < base.total
    check_memory(base, base.total)
    with pytest.raises(InputError, match=r"memory: training needs about .* are free; take micro_batch_size=1"):
        check_memory(base, 1000)
    large = Shape(7_600_000_000, 7_600_000_000, 28, 3584, 18944, 512, 152_064)
    assert 120e9 < estimate(large, TrainingConfig(), longest=8192).total < 1e12
    assert gigabytes(12.3e9) == "12.3 GB"
