"""CLAIMS.md beside the tables of RESULTS.md: planted contradictions are found, and the repository has none."""

from __future__ import annotations

from typing import Any

import pytest
from measured_claims import measured

from analysis.paper import claims_page, consistency
from analysis.paper.consistency import contradictions
from analysis.paper.verdicts import as_table

# What the tables of RESULTS.md say; what CLAIMS.md may say beside them.
_VERDICTS = {"6a": "shown", "6b": "shown", "6c": "open"}
_DIFFERENCES = {"6a": "-0.18", "6b": "-0.20", "6c": "-0.17"}


def results(
    verdicts=None, differences=None, *, k_on_u: float = 0.40, decision_ratio: float = 1.2, u: float = -1
) -> str:
    """RESULTS.md with the tables that are compared: SafeKey's deciding row on U is that ratio times SFT's."""
    verdicts, differences = _VERDICTS | (verdicts or {}), _DIFFERENCES | (differences or {})
    contrasts = [
        f"| {' − '.join(pair)} | {differences[claim]} | {verdicts[claim]} |"
        for claim, pair in consistency.CONTRASTS.items()
    ]
    attention = []
    for reader, on_u in (("the token before K", 0.4), ("K", k_on_u)):
        for model in ("sft", "safekey"):
            over = 0.6 * (decision_ratio if model == "safekey" and reader != "K" else 1)
            attention.append(f"| {reader} | plain | {model} | 0.30 [0.2, 0.4] | {on_u:.2f} | {over:.3f} [0, 1] | 144 |")
    mechanism = [
        f"| understanding, over_distance | 0 | 0.50 ± 0.1 | {0.5 * decision_ratio:.2f} ± 0.1 |",
        "| decision, plain to wrapped | 0 | 0.91 ± 0.1 | 0.97 ± 0.1 |",
        "| understanding, plain to wrapped | 0 | 0.97 ± 0.1 | 1.00 ± 0.0 |",
    ]
    lift = "attention of the token before K on U, × distance alone"
    comparison = [
        "| U names the harm, where a harmful prompt is answered in full | 1.00 [0, 1] (9) | 1.00 [0, 1] (9) |",
        "| U names harm (benign prompts) | 0.33 [0, 1] (9) | 0.33 [0, 1] (9) |",
        *(f"| {lift} ({of}) | 0.60 [0, 1] | {0.6 * decision_ratio:.2f} [0, 1] |" for of in ("harmful", "benign")),
        "| AUROC at the token before K, median over layers | 1.00 [1, 1] | 1.00 [1, 1] |",
        "| AUROC over U, median over layers | 1.00 [1, 1] | 1.00 [1, 1] |",
    ]
    knockout = [f"| {model} | wrapped, refused | understanding | {u:+.2f} [-2, 2] |" for model in ("sft", "safekey")]
    heads = {
        "organism-knockout": ("| model | case | K may not see | other minus same |", knockout),
        "replication-contrasts": ("| contrast | difference | verdict |", contrasts),
        "organism-attention": ("| from | prompts | model | to X | to U | U / distance-matched | n |", attention),
        "replication-mechanism": ("| measure | layer | SFT | both |", mechanism),
        "organism-comparison": ("| measure | organism:sft | organism:safekey |", comparison),
    }
    return "\n\n".join(
        f"<!-- {name} -->\n{head}\n{'|---' * head.count('|')}\n" + "\n".join(rows) + "\n<!-- end -->"
        for name, (head, rows) in heads.items()
    )


Numbers = tuple[float, float, float]


def claims_text(
    tmp_path,
    *,
    runs_6c: Numbers = (-0.17, -0.47, 0.02),
    shift: Numbers = (0.2, 0.1, 0.3),
    mass: Numbers = (-0.1, -0.15, -0.07),
    many_toys: dict[str, Numbers] | None = None,
) -> str:
    pair: dict[str, Any] = {"model": "organism:safekey minus organism:sft", "toy": True}
    table = as_table([
        measured("2a", 0.6, 0.5, 0.7, model="organism:sft", toy=True),
        measured("3a", *mass, model="organism:sft", toy=True),
        measured("3b", *shift, "runs", model="organism, training runs", toy=True),
        measured("3b", -0.2, -0.3, -0.1, "K's own tokens", **pair),
        measured("3c", -0.9, -1.1, -0.7, model="organism:sft", toy=True),
        measured("4a", 0.06, 0.03, 0.09, model="organism, training runs", toy=True),
        measured("4b", 0.03, 0.025, 0.04, model="organism, training runs", toy=True),
        *(measured(claim, *numbers, "many toys", toy=True) for claim, numbers in (many_toys or {}).items()),
        measured("6a", -0.18, -0.4, -0.03, "replication", toy=True),
        measured("6b", -0.20, -0.4, -0.02, "replication", toy=True),
        measured("6c", *runs_6c, "replication", toy=True),
        measured("6c", -0.16, -0.23, -0.10, "one run", toy=True),
    ])  # fmt: skip
    claims_page.write_claims(tmp_path / "CLAIMS.md", table)
    return (tmp_path / "CLAIMS.md").read_text()


def test_claims_that_agree_with_the_tables_have_no_contradiction(tmp_path):
    assert contradictions(claims_text(tmp_path), results()) == []


def test_a_verdict_that_the_replication_does_not_have_is_found(tmp_path):
    planted = claims_text(tmp_path, runs_6c=(-0.17, -0.23, -0.10))
    [line] = contradictions(planted, results())
    assert "6c" in line
    assert "'supports'" in line
    assert "'open'" in line
    [line] = contradictions(claims_text(tmp_path), results({"6c": "excluded beyond 0.05"}, {"6c": "-0.01"}))
    assert "excluded" in line
    [line] = contradictions(claims_text(tmp_path), results({"6a": "shown"}, {"6a": "+0.18"}))
    assert "6a" in line


def test_each_study_is_compared_with_its_own_contrasts(tmp_path):
    toys = {"6a": (-0.05, -0.12, 0.01), "6b": (-0.25, -0.4, -0.1), "6c": (-0.2, -0.41, 0.01)}
    rows = [
        "| DPSH minus SFT | -0.050 [-0.120, +0.010] | open |",
        "| QMM minus SFT | -0.250 [-0.400, -0.100] | shown |",
        "| both minus DPSH | -0.200 [-0.410, +0.010] | shown |",  # by Holm's procedure; its interval says less
    ]

    def table(rows: list[str]) -> str:
        head = "| contrast | difference [simultaneous interval] | verdict |\n|---|---|---|\n"
        return f"{results()}\n\n<!-- toy-study-complied -->\n{head}" + "\n".join(rows) + "\n<!-- end -->"

    text = claims_text(tmp_path, many_toys=toys)
    assert contradictions(text, table(rows)) == []
    [line] = contradictions(
        text, table([rows[0].replace("open", "excluded beyond 0.1").replace("-0.120", "-0.09"), *rows[1:]])
    )
    assert "6a" in line
    [line] = contradictions(text, table([rows[0], rows[1].replace("shown", "open"), rows[2]]))
    assert "6b" in line
    assert "toy-study-complied" in line


def test_weaker_evidence_may_differ_and_is_not_the_claims_verdict(tmp_path):
    assert "weaker evidence: *supports*" in claims_text(tmp_path)


def test_a_related_number_in_the_other_direction_is_found(tmp_path):
    planted = claims_text(tmp_path, shift=(-0.2, -0.3, -0.1))
    found = contradictions(planted, results())
    assert len(found) == 3, "last layer, all runs, own answers"
    assert all("3b" in line for line in found)
    assert contradictions(planted, results(decision_ratio=0.8)) == []
    [line] = contradictions(claims_text(tmp_path, mass=(0.1, 0.07, 0.15)), results())
    assert "3a" in line
    assert contradictions(claims_text(tmp_path, mass=(0.1, 0.07, 0.15)), results(k_on_u=0.27)) == []


def test_what_another_intervention_shows_is_compared(tmp_path):
    [line] = contradictions(claims_text(tmp_path), results(u=0.6))
    assert "3c" in line
    assert contradictions(claims_text(tmp_path), results(u=0.1)) == [], "no effect of interest contradicts nothing"


def test_a_table_or_a_claim_that_is_gone_does_not_count_as_agreement(tmp_path):
    with pytest.raises(ValueError, match="no table organism-attention"):
        contradictions(claims_text(tmp_path), results().replace("<!-- organism-attention -->", ""))
    with pytest.raises(ValueError, match="no rows of 2a"):
        contradictions(claims_text(tmp_path).replace("## 2a.", "## 9z."), results())


def test_the_repositorys_own_claims_contradict_none_of_its_tables():
    claims, tables = consistency.CLAIMS.read_text(encoding="utf-8"), consistency.RESULTS.read_text(encoding="utf-8")
    assert contradictions(claims, tables) == []
