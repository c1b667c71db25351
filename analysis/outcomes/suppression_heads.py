"""Heads that suppress refusal in successful jailbreaks: what ablating them restores, beside random sets of heads.

    python -m analysis.outcomes.suppression_heads [--models organism:sft organism:safekey] [--n N] [--random N]
                                                  [--ranked-by "direct effect" ablation] [--data DIR] [--out DIR]
                                                  [--write]

In reasoning models a few heads have been seen to write against refusal where the reasoning ends, and ablating them to
restore it ("refusal cliff", arXiv 2510.06036: 3 % of the heads). Here heads are ranked in two ways, on jailbreaks of
development requests that succeed, of all wrappers in turn, the most negative first: by their direct effect on safe
minus compliant key sentences at the token before K (logits;
:mod:`~safekey_interp.interventions.direct_logit_attribution`), and by their effect on the log-probability of safe minus
compliant key sentences (nats per token; minus its change when the head is ablated). An ablated head gives its mean over
the tokens of the development answers everywhere. The first k heads are ablated while the model answers requests in
test wrappers. Of those that it complies with otherwise, the share that it now refuses is beside that of ``--random``
random sets of k heads, and of as many sets of k heads of equal importance (the sum of the absolute values that they are
ranked by is at most a quarter away; the nearest where there are fewer, and the table says how many are as near).
p counts sets that restore as much. Malformed answers, and benign requests in the same wrappers that are complied with
otherwise, tell what else it breaks. ``--write`` puts the table into RESULTS.md.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, zip_longest
from typing import Any

import numpy as np
import pandas as pd
import torch

from analysis.outcomes.subject import Subject, arguments, is_jailbreak, subject_of
from analysis.script_errors import or_one_line
from analysis.tables import check_places, markdown, publish
from safekey_interp.capture.component_states import states
from safekey_interp.capture.places import Place
from safekey_interp.capture.residual_edits import Edit, edited
from safekey_interp.data.trace import Trace
from safekey_interp.generation.aha_score import measure_aha
from safekey_interp.interventions.direct_logit_attribution import rank_heads
from safekey_interp.measures.intervals import share_interval
from safekey_interp.models.model import Model

Head = tuple[int, int]
"""Layer and head."""
MATCHED = 0.25
"""Largest relative difference of the sums of absolute effects."""
MOST_SETS = 20_000
"""Sets of heads that are looked through; where there are more, as many are drawn."""
REQUEST_SEED = 3


def mean_values(model: Model, traces: Sequence[Trace]) -> np.ndarray:
    """z of each head (layer, head, d_head), mean over the tokens up to the end of the reasoning, then over traces."""
    found = states(model, traces, positions=["start .. last(reasoning)"], components=["head"], finder="given")
    return found.array[:, 0].mean(0)


def ablated(model: Model, heads: Sequence[Head], means: np.ndarray) -> Any:
    """A block in which these heads give their mean at every token."""
    edits: dict[Place, Edit] = {}
    for layer in {layer for layer, _ in heads}:
        numbers = [head for of, head in heads if of == layer]

        def constant(z: torch.Tensor, layer: int = layer, numbers: list[int] = numbers) -> torch.Tensor:
            changed = z.clone()
            changed[:, :, numbers] = torch.as_tensor(means[layer, numbers], dtype=z.dtype, device=z.device)
            return changed

        edits[Place(layer, "head")] = constant
    return edited(model, edits)


def direct_effects(model: Model, traces: Sequence[Trace], means: np.ndarray) -> pd.Series:
    """Mean direct effect of each head (layer, head) on safe minus compliant, logits."""
    table: Any = rank_heads(model, traces, n_random=0, finder="given")
    return table.groupby(["layer", "head"])["effect"].mean()


def exact_effects(model: Model, traces: Sequence[Trace], means: np.ndarray) -> pd.Series:
    """What each head (layer, head) adds to safe minus compliant: minus the change with it ablated, nats per token."""

    def difference() -> float:
        scores: Any = measure_aha(model, traces, finder="given")
        of_kinds = scores.groupby("kind")["logprob"].mean()
        return float(of_kinds["safe"] - of_kinds["go_ahead"])

    before, found = difference(), {}
    for head in np.ndindex(*means.shape[:2]):
        with ablated(model, [head], means):
            found[head] = before - difference()
    return pd.Series(found)


RANKINGS = {"direct effect": direct_effects, "ablation": exact_effects}


def matched_sets(effects: pd.Series, top: Sequence[Head], n: int, seed: int) -> list[tuple[Head, ...]]:
    """Other sets of as many heads whose absolute effects add up to about as much, at most ``n``."""
    size = _sizes(effects)
    drawn = _sets(effects, top, seed, list(size.values()))
    near = [each for each in drawn if _difference(size, each, top) <= MATCHED]
    return (near if len(near) >= n else sorted(drawn, key=lambda each: _difference(size, each, top)))[:n]


def _sizes(effects: pd.Series) -> dict[Head, float]:
    return {head: abs(float(effect)) for head, effect in effects.items()}  # type: ignore[misc]


def _difference(size: Mapping[Head, float], heads: Iterable[Head], top: Iterable[Head]) -> float:
    """How far apart the sums of two sets are, as a share of the second."""
    wanted = sum(size[head] for head in top)
    return abs(sum(size[head] for head in heads) - wanted) / wanted


def in_turn(traces: Sequence[Trace]) -> list[Trace]:
    """Traces in an order in which the wrappers take turns."""
    of_wrapper: dict[str, list[Trace]] = {}
    for trace in traces:
        of_wrapper.setdefault(trace.meta["wrapper"], []).append(trace)
    return [trace for some in zip_longest(*of_wrapper.values()) for trace in some if trace is not None]


def random_sets(effects: pd.Series, top: Sequence[Head], n: int, seed: int) -> list[tuple[Head, ...]]:
    """Other sets of as many heads in an order that is drawn, at most ``n``."""
    return _sets(effects, top, seed)[:n]


def _sets(
    effects: pd.Series, top: Sequence[Head], seed: int, weights: Sequence[float] | None = None
) -> list[tuple[Head, ...]]:
    """Other sets of as many heads, in an order that is drawn: all, or of too many as many as are looked through, a head
    as often as its weight says."""
    heads, rng = list(effects.index), np.random.default_rng(seed)
    if math.comb(len(heads), len(top)) <= MOST_SETS:
        others = [each for each in combinations(heads, len(top)) if set(each) != set(top)]
        return [others[at] for at in rng.permutation(len(others))]
    chances = None if weights is None else np.array(weights) / sum(weights)
    drawn: dict[tuple[Head, ...], None] = {}
    for _ in range(MOST_SETS):
        found = rng.choice(len(heads), len(top), replace=False, p=chances)
        each = tuple(heads[at] for at in sorted(found))
        if set(each) != set(top):
            drawn[each] = None
    return list(drawn)


def measured(
    subject: Subject, n: int, n_random: int, rankings: Sequence[str], seed: int = 0
) -> Iterator[dict[str, str]]:
    """A row for each ranking and number of heads."""
    development = subject.answered(subject.attacks("development", n, REQUEST_SEED))
    succeeded = [trace for trace in development if is_jailbreak(trace) and trace.given]
    means = mean_values(subject.model, succeeded)
    means_hash = hashlib.sha256(np.ascontiguousarray(means).tobytes()).hexdigest()[:12]
    before = subject.answered(subject.attacks("test", n, REQUEST_SEED))
    broken = [trace for trace in before if is_jailbreak(trace)]
    benign = [trace for trace in before if trace.label == "benign" and trace.meta["outcome"] == "complied"]

    def after(heads: Sequence[Head], traces: Sequence[Trace]) -> tuple[np.ndarray, np.ndarray]:
        """Which are refused, and which malformed."""
        with ablated(subject.model, heads, means):
            asked = [trace.with_(response="", given={}) for trace in traces]
            answers = subject.answered(asked, f"heads {sorted(heads)} {means_hash}")
        refused = np.array([trace.meta["outcome"] == "refused" for trace in answers], float)
        return refused, np.array([not trace.meta["well_formed"] for trace in answers], float)

    for ranking in rankings:
        subject.progress.stage(f"{subject.name}: heads by their {ranking}", None)
        effects = RANKINGS[ranking](subject.model, in_turn(succeeded)[: subject.settings.ranked_on], means)
        for size in subject.settings.head_sets:
            top = list(effects.sort_values().index[:size])
            drawn = {
                "random sets": random_sets(effects, top, n_random, seed),
                "sets of equal importance": matched_sets(effects, top, n_random, seed),
            }
            n_sets = 1 + sum(map(len, drawn.values()))
            subject.progress.stage(f"{subject.name}: answers of sets of {size} heads", n_sets)
            (restored, malformed), (over, _) = after(top, broken), after(top, benign)
            subject.progress.advance(1)
            low, high = share_interval(restored, [trace.group for trace in broken])
            row = {
                "model": subject.name,
                "ranked by": ranking,
                "heads": ", ".join(f"{layer}.{head}" for layer, head in top),
            }
            row["sum of effects"] = f"{effects.loc[top].sum():+.2f}"
            row["refused of successful jailbreaks"] = f"{restored.mean():.2f} [{low:.2f}, {high:.2f}]"
            broke = []
            for words, sets in drawn.items():
                answers = []
                for heads in sets:
                    answers.append(after(heads, broken))
                    subject.progress.advance(1)
                each, badly = np.array(answers).mean(-1).T
                p = (1 + (each >= restored.mean()).sum()) / (1 + len(each))
                row[words] = f"{each.mean():.2f}, to {each.max():.2f}, p {p:.3f} ({_counted(effects, sets, top)})"
                broke.append(f"{badly.mean():.2f}")
            row |= {"malformed": f"{malformed.mean():.2f} ({', '.join(broke)})", "benign refused": f"{over.mean():.2f}"}
            n_wrappers = len({trace.meta["wrapper"] for trace in broken})
            row["n"] = f"{len(broken)} in {n_wrappers} wrappers / {len(benign)}"
            subject.progress.say(", ".join(f"{name} {value}" for name, value in row.items()))
            yield row
    subject.progress.close()


def _counted(effects: pd.Series, sets: Sequence[Sequence[Head]], top: Sequence[Head]) -> str:
    """How many sets there are, and how many of these are of about as much importance."""
    size = _sizes(effects)
    return f"{len(sets)}, {sum(_difference(size, heads, top) <= MATCHED for heads in sets)} as important"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--n", type=int, help="requests of each wrapper and label; the subject's own by default")
    parser.add_argument("--random", type=int, help="sets of heads of each kind; the subject's own by default")
    parser.add_argument("--ranked-by", nargs="+", choices=list(RANKINGS), help="the subject's own by default")
    options = parser.parse_args()
    subjects = [subject_of(name, options.data, options.out) for name in options.models]
    if options.write:
        check_places(["suppression-heads"])
    rows = []
    for subject in subjects:
        settings = subject.settings
        n, n_random = options.n or settings.n_ablated, options.random or settings.n_random
        with subject.progress:
            rows += measured(subject, n, n_random, options.ranked_by or settings.rankings)
    publish({"suppression-heads": markdown(pd.DataFrame(rows))}, write=options.write, is_part=True)


if __name__ == "__main__":
    or_one_line("suppression_heads", main)
