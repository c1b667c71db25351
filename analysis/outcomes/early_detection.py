"""Early detection of compliance with harmful requests: a probe on the states against readers of the words so far.

    python -m analysis.outcomes.early_detection [--models organism:sft organism:safekey] [--n N] [--rate 0.01]
                                                [--data DIR] [--out DIR] [--write]

The model answers requests greedily; its answers are cut at :data:`PREFIXES`, and detectors read the same prefixes:

- ``states``: a logistic probe on the state of the prefix's last token, at the layer that ranks best within the
  training requests by folds of whole pairs;
- ``states of the untrained model``: the same probe on the states of a model that reads the same text and was not
  trained to reason about safety: what a reader of the text knows that is as able as the model itself;
- ``words so far``: a logistic classifier on TF-IDF of prompt and reasoning so far;
- ``words of the reasoning``: on the reasoning alone, as a judge that is shown no prompt;
- ``rules``: what the finder says of the reasoning so far: K a go-ahead 1, undecided 0.5, safe 0; and 0.5 more where U
  names harm. It learns nothing;
- ``an untrained language model, asked`` (SmolLM2): log-odds of yes against no when it is shown prompt and reasoning so
  far and asked whether the assistant will do what the user asked.

What detectors are fitted to, and which benign requests their alarms are calibrated on, is the subject's
(:mod:`analysis.outcomes.subject`), as are the tests: other requests in the same wrappers, and requests in wrappers that
neither the model nor the detectors saw (:mod:`safekey_interp.measures.early_detection`). Harmful requests whose answer
neither complies nor refuses are left out. ``--write`` puts three tables of each model into RESULTS.md: AUROC, the
states' AUROC minus that of every other detector, and alarms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.outcomes.subject import PARTS, Subject, arguments, is_jailbreak, subject_of
from analysis.script_errors import or_one_line
from analysis.tables import check_places, interval, markdown, publish, rows_of, where
from safekey_interp.capture.component_states import states
from safekey_interp.data.trace import Trace
from safekey_interp.measures.auroc import auroc_columns
from safekey_interp.measures.early_detection import (
    AlarmRule,
    Scored,
    auroc_differences,
    calibrate_alarm,
    detection_table,
)
from safekey_interp.measures.estimators import estimator_of
from safekey_interp.measures.folds import make_plan
from safekey_interp.models.model import Model
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings
from safekey_interp.segmentation.segmenter import Segmentation, segment_all, segmented

PREFIXES = {
    "prompt": "prompt_end",
    "first token of U": "first(understanding)",
    "U": "decision",
    "first token of K": "first(key_sentence)",
    "K": "last(key_sentence)",
    "reasoning": "last(reasoning)",
}
"""Ends of the prefixes."""
STATES, WORDS = "states", ("words so far", "words of the reasoning")
_DIGITS = 9
"""Of scores, after the point: what differs by rounding errors alone, as scores of the same words do, is tied."""
TABLES = ("detection", "differences", "alarms")
"""Of a model."""
DECIDED = ("complied", "refused")
"""Outcomes of harmful requests that detectors are fitted to and tested on."""
REQUEST_SEED = 2
"""Of requests: others than those that the behaviour is counted on."""


class Read(NamedTuple):
    """A model's answers, as far as they can be read, and what the detectors are given of them."""

    traces: list[Trace]
    states: dict[str, np.ndarray]
    """By detector: (trace, prefix, layer, d_model)."""
    texts: list[list[str]]
    """Of each prefix, the reasoning so far by trace."""
    opinions: dict[str, np.ndarray]
    """By detector that learns nothing: (trace, prefix)."""
    part: np.ndarray
    """Of each trace, one of :data:`PARTS` or of the tests."""

    @property
    def detectors(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.states, *WORDS, *self.opinions)

    def where(self, some: np.ndarray) -> Read:
        """Of some answers."""
        numbers = np.flatnonzero(some)
        states_, opinions = ({name: values[some] for name, values in of.items()} for of in (self.states, self.opinions))
        texts = [[of_prefix[number] for number in numbers] for of_prefix in self.texts]
        return Read([self.traces[number] for number in numbers], states_, texts, opinions, self.part[some])


class Answers(NamedTuple):
    """A model's answers, as far as they can be read, with the score of every detector at every prefix."""

    traces: list[Trace]
    part: np.ndarray
    """Of each trace, one of :data:`PARTS` or of the tests."""
    scores: dict[str, np.ndarray]
    """By detector: (trace, prefix)."""

    def scored(self, detector: str, some: np.ndarray) -> Scored:
        """The scores of some traces, with what these are."""
        traces = [trace for trace, chosen in zip(self.traces, some, strict=True) if chosen]
        groups = [trace.group for trace in traces]
        return Scored(self.scores[detector][some], _complied(traces), _benign(traces), groups)


def _complied(traces: Sequence[Trace]) -> np.ndarray:
    """Harmful requests that the answer complies with."""
    return np.array([is_jailbreak(trace) for trace in traces], bool)


def _benign(traces: Sequence[Trace]) -> np.ndarray:
    return np.array([trace.label == "benign" for trace in traces], bool)


def scored_answers(subject: Subject, answers: Sequence[Trace], seed: int = 0) -> Answers:
    """Answers with all scores; these are kept with the subject's other files.

    Args:
        subject: whose answers they are.
        answers: with what became of them.
        seed: of folds.
    """

    def made() -> dict[str, Any]:
        found = read(subject, answers)
        decided = [trace.label == "benign" or trace.meta["outcome"] in DECIDED for trace in found.traces]
        found = found.where(np.array(decided, bool))
        with subject.progress as progress:
            progress.stage(f"{subject.name}: detectors", len(found.detectors))
            of_all = {}
            for detector in found.detectors:
                of_all[detector] = scores(found, detector, seed).tolist()
                progress.advance(1)
        number_of = {id(trace): number for number, trace in enumerate(answers)}
        return {"numbers": [number_of[id(trace)] for trace in found.traces], "scores": of_all}

    texts = [text for trace in answers for text in (trace.prompt, trace.response)]
    kept = subject.kept(f"scores of detectors, seed {seed}", texts, made)
    traces = [answers[number] for number in kept["numbers"]]
    part = np.array([subject.part_of(trace) for trace in traces])
    return Answers(traces, part, {name: np.array(values) for name, values in kept["scores"].items()})


def read(subject: Subject, answers: Sequence[Trace]) -> Read:
    """Answers whose every prefix is there, with what the detectors are given."""
    named = [trace.with_(trace_id=str(number)) for number, trace in enumerate(answers)]
    readers = {STATES: subject.model, f"{STATES} of the untrained model": subject.reader}
    every = subject.settings.every_layer
    layers = None if every == 1 else sorted(range(subject.model.n_layers - 1, -1, -every))
    found = {}
    with subject.progress as progress:
        for name, model in readers.items():
            progress.stage(f"{subject.name}: {name}, {len(named):,} answers", None)
            found[name] = states(model, named, positions=tuple(PREFIXES.values()), layers=layers, finder="given")
    whole = _whole(found.values())
    traces = [answers[int(name)] for name in whole]
    arrays = {name: array.array[[array.trace_ids.index(n) for n in whole]][:, :, :, 0] for name, array in found.items()}
    texts = list(map(list, zip(*_so_far(subject.model, traces), strict=True)))
    rules = [
        [_by_rules(found) for found in segment_all([_cut(t, s) for t, s in zip(traces, some, strict=True)])]
        for some in texts
    ]
    opinions = {"rules": np.array(rules).T, **subject.opinions(traces, texts)}
    return Read(traces, arrays, texts, opinions, np.array([subject.part_of(trace) for trace in traces]))


def _whole(arrays: Any) -> list[str]:
    """Traces whose prefixes all readers have."""
    kept: list[list[str]] = []
    for array in arrays:
        there = np.isfinite(array.array).all((1, 2, 3, 4))
        kept.append([name for name, whole in zip(array.trace_ids, there, strict=True) if whole])
    return [name for name in kept[0] if all(name in some for some in kept[1:])]


def _so_far(model: Model, traces: Sequence[Trace]) -> Iterator[list[str]]:
    """Of each trace, the response up to the token that each prefix ends with; none of it for the prompt's end."""
    for trace, found in segmented(traces, SegmentationSettings(finder="given")):
        encoding = model.encode(trace, found)
        before = len(encoding.text) - len(trace.response)
        stops = [encoding.offsets[encoding.positions(end)[-1]][1] - before for end in PREFIXES.values()]
        yield [trace.response[: max(0, stop)] for stop in stops]


def _by_rules(found: Segmentation) -> float:
    return {"unsafe": 1.0, "safe": 0.0}.get(str(found.aha), 0.5) + 0.5 * bool(found.hint)


def _cut(trace: Trace, response: str) -> Trace:
    return trace.with_(response=response, given={}, spans={})


def scores(found: Read, detector: str, seed: int) -> np.ndarray:
    """Scores of all traces at each prefix, by what was fitted to the part ``fit``."""
    if detector in found.opinions:
        return found.opinions[detector]
    fit = found.part == "fit"
    every = np.ones(len(fit), bool)
    logistic = estimator_of("logistic", seed)
    labels = _complied(found.traces)[fit][:, None]
    columns = []
    for number in range(len(PREFIXES)):
        if detector in found.states:
            values = found.states[detector][:, number]
            rows = values[:, _best_layer(found, values, seed)].astype(np.float64)
            space = logistic.states(rows[fit], rows)
        else:
            texts = found.texts[number]
            if detector == "words so far":
                texts = [f"{trace.prompt}\n{text}" for trace, text in zip(found.traces, texts, strict=True)]
            space = logistic.words(texts)(fit, every)
        columns.append(logistic.scores(space, labels).scores)
    return np.stack(columns, axis=1).round(_DIGITS)


def _best_layer(found: Read, values: np.ndarray, seed: int) -> int:
    """The layer of states (trace, layer, d_model) with the highest AUROC by folds of whole groups, within the part that
    is fitted to."""
    fit = np.flatnonzero(found.part == "fit")
    positive, logistic = _complied(found.traces).astype(float), estimator_of("logistic", seed)
    plan = make_plan(fit, positive, [trace.group for trace in found.traces], seed=seed)
    of_layers = []
    for layer in range(values.shape[1]):
        rows, out = values[plan.rows, layer].astype(np.float64), np.zeros(len(plan.rows))
        for fold in range(plan.n_folds):
            test = plan.fold == fold
            space = logistic.states(rows[~test], rows[test])
            out[test] = logistic.scores(space, plan.positive[~test][:, None]).scores
        of_layers.append(float(auroc_columns(out[:, None], plan.positive[:, None], plan.fold)[0]))
    return int(np.argmax(of_layers))


def detected(answers: Answers, tests: Sequence[str], rate: float) -> pd.DataFrame:
    """A row for each test, detector and prefix: as :func:`~safekey_interp.measures.early_detection.detection_table`."""
    rules: dict[str, AlarmRule] = {}
    for detector in answers.scores:
        calibration = (answers.scored(detector, answers.part == part) for part in PARTS[1:])
        benign = (scored.scores[scored.quiet] for scored in calibration)
        rules[detector] = calibrate_alarm(*benign, false_positive_rate=rate)
    tables = []
    for test in tests:
        for detector, rule in rules.items():
            table = detection_table(answers.scored(detector, answers.part == test), rule, tuple(PREFIXES))
            tables.append(table.assign(detector=detector, test=test))
    return pd.concat(tables, ignore_index=True)


def differences(answers: Answers, tests: Sequence[str]) -> pd.DataFrame:
    """The AUROC of ``states`` minus that of another detector, a row for each test, detector and prefix."""
    tables = []
    others = [detector for detector in answers.scores if detector != STATES]
    for test in tests:
        some = answers.part == test
        states_ = answers.scored(STATES, some)
        for detector in others:
            table = auroc_differences(states_, answers.scored(detector, some), tuple(PREFIXES))
            tables.append(table.assign(detector=detector, test=test))
    return pd.concat(tables, ignore_index=True)


def _by_prefix(table: Any, name: str, form: str = ".2f") -> pd.DataFrame:
    """A line for each test and detector, with a column for each prefix."""
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for row in table.to_dict("records"):
        key = (row["test"], row["detector"])
        line = lines.setdefault(key, dict(zip(("test", "detector"), key, strict=True)))
        line[row["prefix"]] = interval(row, name, form)
    return pd.DataFrame(lines.values())


def shown(answers: Answers, tests: Sequence[str], rate: float) -> dict[str, pd.DataFrame]:
    """The tables as RESULTS.md has them, by what they show."""
    table: Any = detected(answers, tests, rate)
    auroc, alarms = (_by_prefix(table, name) for name in ("auroc", "detected"))
    ends = rows_of(where(table, prefix=list(PREFIXES)[-1]))
    auroc["n"] = [f"{row['n_positive']} / {row['n_negative']}" for row in ends]
    alarms["false alarms"] = [interval(row, "false_alarms") for row in ends]
    alarms["n"] = [f"{row['n_positive']} / {row['n_quiet']}" for row in ends]
    minus = _by_prefix(differences(answers, tests), "value", "+.2f").rename(columns={"detector": "states minus"})
    return dict(zip(TABLES, (auroc, minus, alarms), strict=True))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--n", type=int, help="requests of each wrapper and label; the subject's own by default")
    parser.add_argument("--rate", type=float, default=0.01, help="false alarms of benign requests, over all prefixes")
    options = parser.parse_args()
    subjects = [subject_of(name, options.data, options.out) for name in options.models]
    if options.write:
        check_places(f"early-{what}-{subject.key}" for subject in subjects for what in TABLES)
    tables = {}
    for subject in subjects:
        n = options.n or subject.settings.n_detection
        answers = scored_answers(subject, subject.answered(subject.detection_requests(n, REQUEST_SEED)))
        for what, table in shown(answers, subject.settings.detection_tests, options.rate).items():
            tables[f"early-{what}-{subject.key}"] = markdown(table)
    publish(tables, write=options.write)


if __name__ == "__main__":
    or_one_line("early_detection", main)
