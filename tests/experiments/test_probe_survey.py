"""One pass over the data: what can be measured, and which traces are shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from tiny_models import tiny_model, traces

from safekey_interp.capture.streaming import StreamSettings
from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import Content, read_traces
from safekey_interp.errors import InputError
from safekey_interp.experiments.probe_survey import Survey, survey
from safekey_interp.models.model import Model

SETTINGS = StreamSettings()


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model("llama")


def look(model: Model, data: list[Trace], n_examples: int = 4, seed: int = 0, **settings: int) -> Survey:
    return survey(model, data, StreamSettings(**settings), n_examples=n_examples, seed=seed)  # type: ignore[arg-type]


def test_counts(model: Model) -> None:
    data = [
        *traces(5),
        Trace(trace_id="p", prompt="How?", response=""),
        Trace(trace_id="e", prompt="x", response="<think>"),
    ]
    steps: list[int] = []
    found = survey(model, data, SETTINGS, n_examples=2, seed=0, on_trace=steps.append)
    assert (found.n, found.n_with_key_sentence, found.n_with_response) == (7, 5, 6)
    assert (found.classes, found.in_words) == (Counter({"harmful": 2, "benign": 3}), "2 harmful, 3 benign")
    by_outcome = survey(model, data, SETTINGS, label_by="aha", n_examples=2, seed=0)
    assert (by_outcome.classes, by_outcome.in_words) == (Counter({"unsafe": 0, "safe": 5}), "0 unsafe, 5 safe")
    graded = [trace.with_(meta={"grade": number % 2}) for number, trace in enumerate(data)]
    by_grade = survey(model, graded, SETTINGS, label_by="grade", n_examples=2, seed=0)
    assert by_grade.in_words == "3 1, 4 0", "the positive class first"
    assert steps == [1] * 7


def test_groups_are_enough_where_each_class_has_five(model: Model) -> None:
    data = [trace.with_(group=f"g{number % 10}") for number, trace in enumerate(traces(40))]
    assert look(model, data).has_groups
    assert not look(
        model, [trace.with_(group="g0") if trace.label == "harmful" else trace for trace in data]
    ).has_groups
    assert not look(model, data[:8]).has_groups


def test_prompts_alone_have_prompt_positions(model: Model) -> None:
    assert look(model, [Trace(trace_id="p", prompt="How?", response="")]).positions == ("prompt", "prompt_end")


@pytest.mark.parametrize(
    ("data", "settings", "said"),
    [
        ([], {}, "no trace can be measured; there are none"),
        ([Trace(trace_id="e", prompt="x", response="<think>")], {}, "trace e: no key sentence: "),
        (traces(3), {"max_length": 5}, "trace t0: key sentence ends at token"),
    ],
)
def test_data_without_a_trace_to_measure_are_refused(
    model: Model, data: list[Trace], settings: dict[str, int], said: str
) -> None:
    with pytest.raises(InputError) as caught:
        look(model, data, **settings)
    assert said in str(caught.value)


def test_examples_vary_and_repeat(model: Model) -> None:
    data = [trace.with_(source=f"s{i % 5}") for i, trace in enumerate(traces(40))]
    chosen = look(model, data, n_examples=10).examples
    assert len(set(chosen)) == 10
    by_id = {trace.trace_id: trace for trace in data}
    assert {(by_id[name].label, by_id[name].source) for name in chosen} == {(t.label, t.source) for t in data}
    assert look(model, data, n_examples=10).examples == chosen
    assert look(model, list(reversed(data)), n_examples=10).examples == chosen, "the order of the file does not matter"
    assert look(model, data, n_examples=10, seed=1).examples != chosen
    assert look(model, data, n_examples=0).examples == ()
    assert len(look(model, data, n_examples=100).examples) == 40


def content_of(data: Iterable[Trace]) -> Content:
    return read_traces(data).content


def test_content_changes_with_everything_that_a_trace_says() -> None:
    data = traces(2)
    same = content_of(data)
    assert content_of(traces(2)) == same
    changes = ({"label": None}, {"prompt": "x"}, {"response": "x"}, {"group": "x"}, {"source": "x"}, {"meta": {"a": 1}})
    different = {content_of([data[0], data[1].with_(**change)]).sha256 for change in changes}
    assert len(different | {same.sha256}) == len(changes) + 1
    assert content_of(reversed(data)).sha256 != same.sha256
