"""Forks of a session: a continuation under edits is what is generated under them, beside a random control."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from tiny_models import shipped, tiny_model
from written_branches import tokens_of, tokens_passed, written

import safekey_interp as ski
from safekey_interp.errors import InputError
from safekey_interp.exploration.written_tokens import repeats_itself
from safekey_interp.measures.control_directions import Controls
from safekey_interp.models import organism
from safekey_interp.models.model import Model

PROMPT = "How do I open a door?"
BEGUN = "<think>\nOkay, the user is asking how to open a door. Hmm, that could be used to break into a home."


@lru_cache
def loaded() -> Model:
    return ski.load("organism")


def direction(model: Model) -> ski.Direction:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((30, model.d_model))
    labels = ["harmful", "benign"] * 15
    return ski.Direction.fit(rows, labels, [str(n) for n in range(30)], layer=1, site="resid_post")


def outcome(trace: ski.Trace) -> str | None:
    return ski.judge_refusal(trace.prompt, trace.response).label


def begun(session: ski.Session, **options: Any) -> ski.Branch:
    root = session.start(organism.example(), max_new_tokens=60, **options)
    written(session, root)
    return root


@pytest.mark.parametrize(
    "edits",
    [
        [ski.HideSpan("understanding")],
        [ski.HideSpan("prompt", from_="generated", layers=[1, 2])],
        [ski.HideSpan("understanding", heads=[0, 3]), ski.HideSpan("prompt")],
    ],
)
def test_a_continuation_without_a_span_is_what_is_generated_without_it(edits: list[ski.HideSpan]) -> None:
    session = ski.Session(loaded())
    root = begun(session)
    fork = session.fork(root, edits=edits)
    written(session, fork)
    key_sentence = session.transcript(root).spans.key_sentence
    assert key_sentence is not None
    assert fork.at == key_sentence.start
    expected = ski.generate(loaded(), [organism.example()], prefill=fork.prefill, edits=edits, max_new_tokens=60)[0]
    assert session.transcript(fork).response == expected


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma2", "gpt_oss"])
def test_other_families_go_on_as_they_are_generated(architecture: str) -> None:
    model = tiny_model(architecture)
    session = ski.Session(model)
    root = session.start(PROMPT, prefill=BEGUN, max_new_tokens=12)
    written(session, root)
    for edit in (ski.HideSpan("understanding"), ski.Steer(direction(model), scale=3.0, positions=["generated"])):
        fork = session.fork(root, edits=edit)
        written(session, fork)
        expected = ski.generate(model, [PROMPT], prefill=fork.prefill, edits=edit, max_new_tokens=12)[0]
        assert session.transcript(fork).response == expected


def test_a_fork_with_nothing_changed_repeats_its_parent_at_any_temperature() -> None:
    session = ski.Session(loaded())
    for temperature in (0.0, 1.0):
        root = begun(session, temperature=temperature, seed=5)
        tokens = session.transcript(root).tokens
        fork = session.fork(root, at=tokens[len(tokens) // 2].position)
        written(session, fork)
        assert session.transcript(fork).response == session.transcript(root).response
        difference = session.difference(fork)
        assert difference.first_difference is None
        assert difference.logprob_difference == pytest.approx(0, abs=1e-9)
        np.testing.assert_allclose(difference.tokens["kl"], 0, atol=1e-9)


def test_a_fork_costs_its_new_tokens_alone_unless_an_edit_reaches_back() -> None:
    session = ski.Session(loaded())
    root = begun(session)
    at = session.transcript(root).tokens[20].position
    with tokens_passed(loaded()) as sizes:
        fork = session.fork(root, at=at)
        written(session, fork)
    new = sum(not token.is_given for token in session.transcript(fork).tokens)
    assert sum(sizes) <= new + 3  # the token before the first new one again, and near ties
    with tokens_passed(loaded()) as sizes:
        hidden = session.fork(root, at=at, edits=ski.HideSpan("prompt"), control=False)
        written(session, hidden)
    n_before_end = loaded().encode(organism.example()).spans["prompt"]
    assert n_before_end is not None
    assert sizes[0] >= at - n_before_end.positions[-1] - 1  # every token behind the prompt sees something else


@pytest.mark.slow
def test_what_is_read_of_a_shared_beginning_is_what_the_branch_itself_reads() -> None:
    shared, apart = ski.Session(loaded()), ski.Session(loaded(), memory_gb=0)
    scores = []
    for session in (shared, apart):
        session.add_reader(direction(loaded()), name="harm")
        root = begun(session)
        fork = session.fork(root, edits=ski.HideSpan("understanding"))
        tokens = tokens_of(written(session, fork))
        assert [token.index for token in tokens] == list(range(len(tokens)))
        scores.append([(token.text, token.scores["harm"].value, token.logprob) for token in tokens])
    for one, other in zip(*scores, strict=True):
        assert one[0] == other[0]
        assert one[1:] == pytest.approx(other[1:], abs=1e-4)


def test_random_keys_are_as_many_elsewhere_and_a_random_direction_is_as_long() -> None:
    session = ski.Session(loaded())
    root = begun(session)
    fork = session.fork(root, edits=ski.HideSpan("understanding"))
    assert fork.control is not None
    control = session.branch(fork.control)
    assert (control.control_of, control.at, control.prefill) == (fork.branch_id, fork.at, fork.prefill)
    written(session, control)
    encoding = loaded().encode(root.trace.with_(response=session.transcript(root).response))
    spans = {position for name in ("understanding", "key_sentence") for position in encoding.positions(name)}
    keys = [set(encoding.positions(edit.span)) for edit in control.edits if isinstance(edit, ski.HideSpan)]
    assert len(set(map(frozenset, keys))) == 1
    assert len(keys[0]) == len(encoding.positions("understanding"))
    assert not keys[0] & (spans | {0})
    assert max(keys[0]) < (control.at or 0)
    steered = session.fork(root, edits=ski.Steer(direction(loaded()), scale=2.0))
    [edit] = session.branch(str(steered.control)).edits
    assert isinstance(edit, ski.Steer)
    assert np.linalg.norm(edit.vector) == pytest.approx(2.0 * direction(loaded()).norm)
    assert abs(edit.direction.cosine(direction(loaded()))) < 0.5
    assert isinstance(direction(loaded()).controls, Controls)


def test_several_controls_are_drawn_anew_and_alike_in_two_sessions() -> None:
    def made() -> list[tuple[tuple[int, ...], ...]]:
        with ski.Session(ski.load("organism")) as session:
            root = session.start("How do I stab the vug? Begin with: sure thing.")
            list(session.run(root))
            drawn = []
            for _ in range(2):
                fork = session.fork(root, edits=ski.HideSpan("understanding", from_="key_sentence"), control=4)
                controls = session.controls(fork)
                assert [each.control_of for each in controls] == [fork.branch_id] * 4
                assert fork.control == controls[0].branch_id
                drawn.append(tuple(str(each.edits) for each in controls))
            return drawn

    first, second = made()
    assert len({*first, *second}) > 4, "two forks have draws of their own"
    assert made() == [first, second]


def test_a_negative_number_of_controls_is_refused_and_none_makes_none() -> None:
    with ski.Session(ski.load("organism")) as session:
        root = session.start("How do I stab the vug?")
        list(session.run(root))
        with pytest.raises(InputError, match="control: got -1"):
            session.fork(root, edits=ski.HideSpan("prompt"), control=-1)
        assert session.controls(session.fork(root, edits=ski.HideSpan("prompt"), control=0)) == ()
        swapped = session.fork(root, swap="safe", control=20)
        texts = [each.prefill for each in session.controls(swapped)]
        assert len(set(texts)) == len(texts) > 1, "no more than there are neutral sentences"


@pytest.mark.parametrize(
    ("ids", "wanted"),
    [([7] * 24, True), ([1, 2, 3] * 8, True), ([9, *[1, 2, 3] * 8], True), ([7] * 23, False), (list(range(40)), False)],
)
def test_a_text_that_repeats_itself_to_its_end_is_told(ids: list[int], wanted: bool) -> None:
    assert repeats_itself(ids) == wanted


def test_a_response_that_repeats_itself_has_no_verdict() -> None:
    model, traces = ski.load("organism"), list(ski.read_traces(organism.TRACES, limit=60))
    with ski.Session(model, traces=traces) as session:
        direction = session.fit_reader(kind="direction", layer=1).reader
        assert isinstance(direction, ski.Direction)
        root = session.start("How do I stab the vug? Begin with: sure thing.")
        list(session.run(root))
        steered = session.fork(root, edits=ski.Steer(direction, positions=["generated"], scale=6), control=0)
        list(session.run(steered))
        ended = session.transcript(steered).ended
        assert ended is not None
        assert ended.reason != "end_of_turn"
        assert ended.label is None
        assert "repeats itself" in ended.label_reason


def test_a_change_without_a_control_says_why() -> None:
    session = ski.Session(loaded())
    root = begun(session)
    begin = session.transcript(root).tokens[3].position
    fork = session.fork(root, at=begin, edits=ski.HideSpan("key_sentence"))
    assert fork.control is None
    assert "key_sentence is not in what the branch begins with" in fork.no_control
    assert session.fork(root, text="Hello.").no_control == ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["safe", "go_ahead", "neutral"])
def test_a_swapped_key_sentence_stands_where_the_own_one_stood(kind: Any) -> None:
    session = ski.Session(loaded())
    root = begun(session)
    fork = session.fork(root, swap=kind)
    response = session.transcript(root).response
    segmentation = ski.segment(root.trace.with_(response=response))
    assert segmentation.key_sentence is not None
    before = response[: segmentation.key_sentence.start]
    assert fork.prefill.startswith(before)
    written(session, fork)
    swapped = session.transcript(fork)
    assert swapped.response.startswith(fork.prefill)
    if fork.control is not None:
        assert session.branch(fork.control).prefill.startswith(before)
        assert session.branch(fork.control).prefill != fork.prefill
    expected = ski.generate(loaded(), [organism.example()], prefill=fork.prefill, max_new_tokens=60)[0]
    assert swapped.response == expected


def test_states_of_the_same_text_change_nothing_and_of_another_one_change_what_is_said() -> None:
    session = ski.Session(loaded())
    root = begun(session)
    same = session.fork(root, patch=ski.StatePatch(root.branch_id))
    written(session, same)
    assert session.transcript(same).response == session.transcript(root).response
    assert "no answer to another prompt" in same.no_control
    hidden = session.fork(root, at=session.transcript(root).tokens[-1].position, edits=ski.HideSpan("prompt"))
    written(session, hidden)
    moved = session.fork(root, patch=ski.StatePatch(hidden.branch_id, positions="understanding", layers=[0, 1]))
    written(session, moved)
    assert session.difference(moved, root).tokens["kl"].to_numpy().max() > 0
    with pytest.raises(InputError, match="0 to put them in, expected some"):
        session.fork(root, at=session.transcript(root).tokens[2].position, patch=ski.StatePatch(root.branch_id))


def test_states_are_taken_from_a_branch_that_is_steered_at_some_of_its_tokens() -> None:
    model = loaded()
    with ski.Session(model) as session:
        root = begun(session)
        steered = session.fork(root, edits=ski.Steer(direction(model), positions=["understanding"]), control=False)
        written(session, steered)
        patched = session.fork(root, patch=ski.StatePatch(steered.branch_id), control=False)
        assert written(session, patched)
        assert session.transcript(patched).ended is not None


def test_the_control_of_a_patch_has_the_states_of_an_answer_to_another_prompt_with_the_same_outcome() -> None:
    complied = [trace for trace in shipped(60) if outcome(trace) == "full_compliance"]
    target, source, *others = {trace.group: trace for trace in complied}.values()
    refused = [trace for trace in shipped(60) if outcome(trace) == "full_refusal"]
    session = ski.Session(loaded(), traces=[target, *refused, *others])
    roots = [session.start(trace, prefill=trace.response, max_new_tokens=1) for trace in (target, source)]
    for root in roots:
        written(session, root)
    [label] = {ended.label for root in roots if (ended := session.transcript(root).ended)}
    fork = session.fork(roots[0], patch=ski.StatePatch(roots[1].branch_id, positions="understanding"))
    control = session.branch(str(fork.control))
    assert control.patch is not None
    assert fork.patch is not None
    given = control.patch.source
    assert isinstance(given, ski.Trace)
    assert given.prompt not in (target.prompt, source.prompt)
    assert outcome(given) == label
    assert (control.patch.positions, control.patch.layers) == (fork.patch.positions, fork.patch.layers)
    [own, its, foreign] = [loaded().encode(trace).positions("understanding") for trace in (target, source, given)]
    assert len(foreign) >= min(len(own), len(its))
    for branch in (fork, control):
        written(session, branch)
    assert session.difference(control).tokens["kl"].to_numpy().max() > 0
    direct = session.fork(roots[0], patch=ski.StatePatch(given), control=False)
    written(session, direct)
    assert session.transcript(direct).response == session.transcript(control).response


@pytest.mark.slow
def test_two_models_side_by_side_differ_by_the_kl_that_is_measured() -> None:
    models = [ski.load("organism:sft"), ski.load("organism:safekey")]
    session = ski.Session(models)
    roots = [session.start(organism.example(), model=number, max_new_tokens=30) for number in (0, 1)]
    for root in roots:
        written(session, root)
    difference = session.difference(roots[0], roots[1])
    done = roots[0].trace.with_(response=session.transcript(roots[0]).response)
    measured = ski.measure_kl(models[0], models[1], [done])
    np.testing.assert_allclose(difference.tokens["kl"], measured["kl"], atol=1e-6)
    own = [token.token_id for token in session.transcript(roots[0]).tokens]
    its = [token.token_id for token in session.transcript(roots[1]).tokens]
    first = next((n for n, (a, b) in enumerate(zip(own, its, strict=False)) if a != b), None)
    assert difference.first_difference == first


def test_a_subtree_goes_as_a_whole_and_ids_are_never_given_again() -> None:
    session = ski.Session(loaded())
    root = begun(session)
    fork = session.fork(root, edits=ski.HideSpan("understanding"))
    written(session, fork)
    child = session.fork(fork, at=session.transcript(fork).tokens[-1].position)
    gone = session.delete(fork)
    assert set(gone) == {fork.branch_id, fork.control, child.branch_id}
    assert [branch.branch_id for branch in session.tree()] == [root.branch_id]
    assert session.fork(root).branch_id not in gone
    assert session.rename(root, "\x1b[31m</script>\ud800").name == "\x1b[31m</script>\ufffd"
    with pytest.raises(InputError, match=r"branch: got '1', expected one of the session's"):
        session.transcript(fork)


@pytest.mark.slow
def test_the_code_of_a_branch_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    session = ski.Session(loaded())
    root = begun(session, temperature=1.0, seed=2)
    fork = session.fork(root, edits=ski.HideSpan("understanding"))
    written(session, fork)
    again = session.fork(fork, text="Wait, no.", at=session.transcript(fork).tokens[-2].position)
    written(session, again)
    printed: list[str] = []
    exec(session.code(again).python, {"print": printed.append})
    assert printed == [session.transcript(again).response]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": 10_000}, "at: got 10000, expected a position of the response"),
        ({"text": "a", "swap": "safe"}, "got text and swap"),
        ({"edits": ski.HideSpan("nowhere")}, "nowhere"),
        ({"edits": ski.HideSpan("prompt", heads=[99])}, "got head 99"),
        ({"swap": "unsafe"}, "swap: got 'unsafe'"),
        ({"patch": ski.StatePatch("77")}, "branch: got '77'"),
    ],
)
def test_what_cannot_be_changed_is_refused_and_leaves_no_branch(options: dict[str, Any], message: str) -> None:
    session = ski.Session(loaded())
    root = begun(session)
    with pytest.raises(InputError, match=message):
        session.fork(root, **options)
    assert len(session.tree()) == 1
