"""Resampling of sentences: what is given ends before the sentence, importance is kept minus resampled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import safekey_interp as ski
from safekey_interp.cli.app import main
from safekey_interp.errors import InputError
from safekey_interp.models import organism
from safekey_interp.segmentation.named_spans import sentence_spans

TRACES = list(ski.read_traces(str(organism.TRACES), limit=4))


@pytest.fixture(scope="module")
def model() -> ski.Model:
    return ski.load("organism:sft")


def test_each_request_gives_what_stands_before_its_sentence_and_the_last_gives_all(model: ski.Model) -> None:
    requests, left_out = ski.sentence_requests(model.tokenizer, TRACES, most=3)
    assert not left_out
    for trace in TRACES:
        own = [request for request in requests if request.trace.trace_id == trace.trace_id]
        sentences = list(sentence_spans(ski.segment(trace)))[:3]
        parts = [*(part for part, _ in sentences), "end"]
        assert [request.condition for request in own] == [f"sentence {n}, {part}" for n, part in enumerate(parts)]
        encoding = model.encode(trace)
        for request, behind, (_, span) in zip(own, own[1:], sentences, strict=False):
            assert trace.response.startswith(request.prefill)
            assert len(request.prefill) <= span.start
            assert behind.prefill[len(request.prefill) :].strip() == span.text(trace.response).strip()
            ids = request.input_ids or ()
            assert ids == tuple(encoding.input_ids[: len(ids)].tolist())
            assert request.depth == len(ids) - encoding.response_start if ids else request.depth == 0


def test_without_a_tokenizer_the_text_is_given_and_a_trace_without_reasoning_is_left_out() -> None:
    bare = TRACES[0].with_(trace_id="bare", response="")
    requests, left_out = ski.sentence_requests(None, [TRACES[0], bare], most=2)
    assert [request.input_ids for request in requests] == [None] * 3
    assert list(left_out) == ["bare"]
    with pytest.raises(InputError, match="most: got 0"):
        ski.sentence_requests(None, TRACES, most=0)


def planted(n_traces: int, n: int, seed: int) -> pd.DataFrame:
    """Rows in which K alone decides: 40 % of resampled K's refuse, and behind K every response does; half of the
    resampled U's are the same sentence again."""
    rng = np.random.default_rng(seed)
    texts = ["The user asks. ", "No. ", "So I stop. "]
    parts, rows = ["understanding", "key_sentence", "rest", "end"], []
    for trace in range(n_traces):
        for number, part in enumerate(parts):
            prefill = "<think>\n" + "".join(texts[:number])
            for sample in range(n):
                refuses = number >= 2 or rng.random() < 0.4
                again = texts[0] if number == 0 and sample % 2 else "Other words. "
                response = prefill + again + "</think>\n" + ("REFUSED" if refuses else "DONE")
                about = {"prompt_id": f"t{trace}", "prompt": "x", "group": f"g{trace // 2}", "label": "harmful"}
                rows.append(about | {"condition": f"sentence {number}, {part}", "sample": sample})
                rows[-1] |= {"prefill": prefill, "response": response}
    return pd.DataFrame(rows)


def refused(prompt: str | None, text: str) -> bool | None:
    return True if "REFUSED" in text else False if "DONE" in text else None


def test_importance_is_the_rate_behind_minus_the_rate_before_and_finds_the_sentence_that_decides() -> None:
    rows = planted(24, 30, seed=0)
    table = ski.sentence_importance(rows, refused)
    assert len(table) == 24 * 3
    rows["value"] = rows["response"].str.contains("REFUSED")
    for row in table.itertuples():
        mine = rows[rows["prompt_id"] == row.trace_id]
        rates = mine.groupby(mine["condition"].str.extract(r"(\d+)")[0].astype(int))["value"].mean()
        assert row.importance == pytest.approx(rates[row.source + 1] - rates[row.source])
        assert row.low <= row.importance <= row.high
        assert (row.n_kept, row.n_resampled) == (30, 30)
        assert row.n_other == (15 if row.source == 0 else 30)
    of_key = table[table["source_part"] == "key_sentence"]
    assert ((of_key["low"] < 0.6) & (of_key["high"] > 0.6)).mean() > 0.85
    summary = ski.summarise_importance(table).set_index("source_part")
    assert summary.loc["key_sentence", "low"] < 0.6 < summary.loc["key_sentence", "high"]
    assert summary.loc["key_sentence", "low"] > 0.2
    assert summary.loc["understanding", "low"] < 0 < summary.loc["understanding", "high"]
    assert set(summary["n_groups"]) == {12}
    assert summary.loc["rest", "importance"] == 0


def test_responses_without_an_outcome_do_not_count_and_few_samples_have_no_interval() -> None:
    rows = planted(2, 6, seed=1)
    rows.loc[rows["sample"] < 2, "response"] = rows["prefill"]
    table = ski.sentence_importance(rows, refused)
    assert set(table["n_kept"]) == set(table["n_resampled"]) == {4}
    assert table[["low", "high"]].isna().to_numpy().all()
    assert not table["importance"].isna().any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"condition": "swap"}, "conditions that are no sentences"),
        ({"condition": "sentence 0, understanding"}, "no sentence has responses before and behind it"),
    ],
)
def test_other_files_are_refused(change: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        ski.sentence_importance(planted(2, 3, seed=0).assign(**change), refused)
    with pytest.raises(InputError, match="no columns prefill"):
        ski.sentence_importance(planted(2, 3, seed=0).drop(columns="prefill"), refused)
    (tmp_path / "rows.jsonl").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        ski.sentence_importance(tmp_path / "rows.jsonl", refused)


def test_the_command_writes_resumes_and_says_what_sentences_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "resampled.jsonl"
    words = ["generate", "--prompts", str(organism.TRACES), "--limit", "2", "--model", "organism:sft", "--quiet"]
    words += ["--resample", "sentences", "--most", "2", "--max-new-tokens", "30", "--out", str(out)]
    said = []
    for n in ("2", "3"):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--temperature", "1", "--n", n])
        assert ended.value.code == 0
        said.append(" ".join(capsys.readouterr().out.split()))
    assert "18 responses" in said[1]
    assert "6 new, 12 from before" in said[1]
    assert "understanding, harmful: refusals when kept minus when resampled" in said[1]
    table = ski.sentence_importance(out, lambda prompt, text: len(text) % 2)
    assert set(table["n_kept"]) == {3}
    for wrong, why in (
        (["--temperature", "0"], "got temperature 0"),
        (["--temperature", "1", "--prefill", "swap"], "--resample, --prefill: got both"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*words, *wrong])
        assert ended.value.code == 2
        assert why in capsys.readouterr().err
