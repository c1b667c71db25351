"""Sentences of the reasoning drawn anew: what each changes in the outcome, and K by what the model itself writes.

    python -m analysis.outcomes.sentence_resampling [--models organism:sft organism:safekey] [--n N] [--draws N]
                                                    [--data DIR] [--out DIR] [--write]

The model answers harmful requests in test wrappers greedily. Of as many answers that comply as answers
that refuse, each sentence is resampled
(:mod:`~safekey_interp.generation.sentence_resampling`, arXiv 2506.19143): its importance is the share of answers that
comply behind it, minus the share where the model writes it anew. Then K alone is drawn behind the same X and U, and the
model goes on greedily behind the first draw of each kind, and behind a sentence of that kind that is put in by hand
(:mod:`~safekey_interp.generation.key_sentence_resampling`, arXiv 2510.27484: edits that the model would not write have
other effects than those that it would). Temperature and outcome are the subject's
(:mod:`analysis.outcomes.subject`). ``--write`` puts the tables into RESULTS.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.outcomes.subject import Subject, arguments, subject_of
from analysis.script_errors import or_one_line
from analysis.tables import check_places, interval, markdown, publish
from safekey_interp.data.trace import Trace
from safekey_interp.generation.key_sentence_resampling import resample_key_sentences, summarise_rates
from safekey_interp.generation.local_engine import LocalEngine
from safekey_interp.generation.prefill import summarise_outcomes, swap_sentences_for
from safekey_interp.generation.response_run import write_responses
from safekey_interp.generation.sampling_settings import Sampling
from safekey_interp.generation.sentence_resampling import sentence_importance, sentence_requests, summarise_importance
from safekey_interp.measures.intervals import difference_of_shares

DIFFERENCE = "go_ahead minus safe"
OUTCOMES = ("complied", "refused")
"""Of greedy answers, those that are resampled."""
REQUEST_SEED = 4
"""Of the toy's requests: others than those that the other studies ask."""


def resampled(subject: Subject, n: int) -> dict[str, list[Trace]]:
    """Greedy answers to harmful requests in test wrappers whose U and K can be read, by outcome: as many of either in
    each wrapper as it has of the rarer."""
    asked = [trace for trace in subject.attacks("test", n, REQUEST_SEED) if trace.label == "harmful"]
    read = [trace for trace in subject.answered(asked) if trace.given]
    found: dict[str, list[Trace]] = {outcome: [] for outcome in OUTCOMES}
    for wrapper in dict.fromkeys(trace.meta["wrapper"] for trace in read):
        here = [
            [t for t in read if (t.meta["wrapper"], t.meta["outcome"]) == (wrapper, outcome)] for outcome in OUTCOMES
        ]
        for outcome, some in zip(OUTCOMES, here, strict=True):
            found[outcome] += some[: min(map(len, here))]
    return found


def complies(subject: Subject, traces: Sequence[Trace]) -> Callable[[str | None, str], bool]:
    """Whether what is written behind a prefill complies with its prompt."""
    of_prompt = {trace.prompt: trace for trace in traces}
    return lambda prompt, text: subject.continued(of_prompt[str(prompt)], text) == "complied"


def importance(subject: Subject, traces: Sequence[Trace], n: int) -> pd.DataFrame:
    """A row for each part of the reasoning, as :func:`summarise_importance`; outcome: the answer complies."""
    settings = subject.settings
    asked = sentence_requests(subject.model.tokenizer, traces, finder="given").requests
    sampling = Sampling(temperature=settings.temperature, n=n, max_new_tokens=settings.max_new_tokens)
    with tempfile.TemporaryDirectory() as folder:
        name = subject.digest(f"draws {sampling}", _texts(traces))
        file = (subject.out or Path(folder)) / f"{subject.key}-{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        engine = LocalEngine(subject.model, batch_size=settings.batch_size)
        write_responses(engine, asked, out=file, sampling=sampling, progress=subject.progress)
        table = sentence_importance(file, complies(subject, traces))
    return summarise_importance(table)


def _texts(traces: Sequence[Trace]) -> list[str]:
    return [f"{trace.prompt}\n{trace.response}" for trace in traces]


def key_sentences(subject: Subject, traces: Sequence[Trace], n: int) -> pd.DataFrame:
    """A row for each kind of K: how often the model draws it, and how often it complies behind its own and behind one
    that is put in by hand; and one for a go-ahead minus a safe K in the same traces."""
    settings = subject.settings
    what = f"draws of key sentences {n}, {settings.key_tokens} tokens, temperature {settings.temperature}"
    with subject.progress as progress:
        progress.stage(f"{subject.name}: key sentences of {len(traces)} answers, {n} draws each", None)
        drawn = subject.kept(what, _texts(traces), lambda: _drawn_keys(subject, traces, n))
    table: Any = pd.DataFrame(drawn)
    behind: Any = table.dropna(subset=["continuation"])
    of, outcome = {trace.trace_id: trace for trace in traces}, complies(subject, traces)
    complied = [
        outcome(of[name].prompt, text) for name, text in zip(behind["trace_id"], behind["continuation"], strict=True)
    ]
    behind = behind.assign(complied=complied)
    rows: Any = summarise_rates(table).set_index("condition")[["rate", "low", "high", "n_traces"]]
    rows.loc[DIFFERENCE] = np.nan
    for words, part in (("own", behind[behind["on_policy"]]), ("given", behind[~behind["on_policy"].astype(bool)])):
        found = summarise_outcomes(part, "complied").set_index("condition")[["rate", "low", "high", "n"]]
        found.loc[DIFFERENCE] = go_ahead_minus_safe(part)
        rows = rows.join(found.add_prefix(f"{words}_"))
    return rows.reset_index()


def go_ahead_minus_safe(behind: Any) -> list[float]:
    """Of traces with both: the mean difference of complying, with its interval over groups, and their number."""
    wide = behind.assign(complied=behind["complied"].astype(float)).pivot_table(
        "complied", ["trace_id", "group"], "condition"
    )
    both = wide.reindex(columns=["go_ahead", "safe"]).dropna()
    groups = list(both.index.get_level_values("group"))
    go_ahead, safe = (both[kind].to_numpy(float) for kind in ("go_ahead", "safe"))
    low, high = difference_of_shares((safe, groups), (go_ahead, groups))
    return [float((go_ahead - safe).mean()) if groups else np.nan, low, high, len(groups)]


def _drawn_keys(subject: Subject, traces: Sequence[Trace], n: int) -> list[dict[str, Any]]:
    settings = subject.settings
    table = resample_key_sentences(
        subject.model,
        traces,
        n_tries=n,
        key_tokens=settings.key_tokens,
        sampling=Sampling(temperature=settings.temperature),
        answering=Sampling(max_new_tokens=settings.max_new_tokens),
        sentences=swap_sentences_for(subject.model.tokenizer),
    )
    return table.astype(object).where(table.notna(), None).to_dict("records")


def shown_importance(name: str, outcome: str, table: Any) -> list[dict[str, str]]:
    """Lines of RESULTS.md."""
    return [
        {
            "model": name,
            "greedy answer": outcome,
            "sentence": str(row["source_part"]).replace("_", " "),
            "complied, kept": f"{row['rate_kept']:.2f}",
            "complied, written anew": f"{row['rate_resampled']:.2f}",
            "importance": interval(row, "importance", "+.2f"),
            "traces": str(row["n_traces"]),
            "sentences": str(row["n_sentences"]),
        }
        for row in table.rename(columns={"low": "importance_low", "high": "importance_high"}).to_dict("records")
    ]


def shown_key_sentences(name: str, outcome: str, table: Any) -> list[dict[str, str]]:
    """Lines of RESULTS.md."""
    lines = []
    for row in table.rename(columns={"low": "rate_low", "high": "rate_high"}).to_dict("records"):
        line = {"model": name, "greedy answer": outcome, "K": str(row["condition"]).replace("_", "-")}
        is_difference = row["condition"] == DIFFERENCE
        line["drawn"] = "" if is_difference else interval(row, "rate")
        for words in ("own", "given"):
            of = {"rate": row[f"{words}_rate"], "rate_low": row[f"{words}_low"], "rate_high": row[f"{words}_high"]}
            n = row[f"{words}_n"]
            form = "+.2f" if is_difference else ".2f"
            line[f"complied behind {words}"] = f"{interval(of, 'rate', form)} ({n:.0f})" if n > 0 else "–"
        lines.append(line)
    return lines


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--n", type=int, help="requests of each wrapper and label; the subject's own by default")
    parser.add_argument(
        "--draws", type=int, help="responses before and behind each sentence, and draws of K; the subject's own"
    )
    options = parser.parse_args()
    subjects = [subject_of(name, options.data, options.out) for name in options.models]
    if options.write:
        check_places(["sentence-importance", "key-sentence-draws"])
    sentences, keys = [], []
    for subject in subjects:
        draws = options.draws or subject.settings.draws
        for outcome, traces in resampled(subject, options.n or subject.settings.n_resampled).items():
            sentences += shown_importance(subject.name, outcome, importance(subject, traces, draws))
            keys += shown_key_sentences(subject.name, outcome, key_sentences(subject, traces, draws))
    tables = {"sentence-importance": sentences, "key-sentence-draws": keys}
    publish({what: markdown(pd.DataFrame(rows)) for what, rows in tables.items()}, write=options.write, is_part=True)


if __name__ == "__main__":
    or_one_line("sentence_resampling", main)
