"""Coverage of each kind of interval that the package prints, from the smallest number of groups.

    python -m analysis.validation.interval_coverage [--simulations 5000] [--only KIND …] [--write]

One row per kind: its use, its stated range, and over all settings in that range the mean and the lowest coverage (with
its setting), the Monte Carlo error of a setting, and the width relative to the percentile bootstrap over groups on the
same data, with the coverage of the bootstrap. Nominal: 95 %. Simulated data:
:mod:`analysis.validation.interval_simulations`. ``--write`` puts the table into RESULTS.md,
where with ``--only`` the rows of other kinds stay.
"""

from __future__ import annotations

import argparse
import itertools
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.tables import markdown, publish
from analysis.validation import interval_simulations as simulations
from safekey_interp.data.conditions import FEW

GROUPS = (FEW, 20, 50, 200)


class Kind(NamedTuple):
    """One kind of interval."""

    name: str
    """In the table."""
    used: str
    """What has it."""
    ranges: str
    """Where it is said to hold."""
    simulate: Callable[..., simulations.Trial]
    """A generator, simulations, groups and a setting."""
    groups: tuple[int, ...]
    """Numbers of groups: the least allowed first."""
    settings: tuple[dict[str, Any], ...]
    """Each once for every number of groups."""


def product(**values: tuple[Any, ...]) -> tuple[dict[str, Any], ...]:
    """Every combination."""
    return tuple(dict(zip(values, each, strict=True)) for each in itertools.product(*values.values()))


KINDS = (
    Kind(
        "mean",
        "attention by layer, effects, control, excess, safe minus compliant, trajectories, KL by depth",
        f"{FEW} groups; skewness of group means to 6",
        simulations.mean,
        GROUPS,
        product(kind=tuple(simulations.MEANS)),
    ),
    Kind(
        "ratio of means",
        "lifts, lift over matched, share of an effect",
        f"{FEW} groups; skewness of residuals to 3, else 50 groups",
        simulations.ratio,
        GROUPS,
        product(spread=(0.2, 0.5)),
    ),
    Kind(
        "difference of two ratios",
        "`compare`: lifts, StrongREJECT's score; claims 3b, 3c; SmolLM2's loss on K",
        f"{FEW} groups on each side",
        simulations.ratio_difference,
        GROUPS,
        product(spread=(0.2, 0.5)),
    ),
    Kind(
        "share",
        "attack success, over-refusal, Safe@K, aha, agreement of judges and annotators, behaviour",
        f"{FEW} groups; any share, 0 and 1 observed included; any correlation within groups",
        simulations.share,
        GROUPS,
        product(at=(0.02, 0.1, 0.5, 0.95), icc=(0, 0.3, 1), rows=(1, 8)),
    ),
    Kind(
        "difference of shares, same prompts",
        "`compare`, `compare_models`, prefilled answers, claims 1b, 2a, 5, 6",
        f"{FEW} groups on each side; any shares",
        simulations.share_difference,
        GROUPS,
        product(first=(0.02, 0.5, 0.95), second=(0.02, 0.3, 0.95), together=(0, 0.95)),
    ),
    Kind(
        "difference of shares, other prompts",
        "claim 1a: aha against none",
        f"{FEW} groups on each side; any shares",
        simulations.share_difference,
        GROUPS,
        product(first=(0.02, 0.5), second=(0.02, 0.3, 0.95), together=(0,), paired=(False,)),
    ),
    Kind(
        "p of flipped signs",
        "`compare`, `compare_models`",
        "any number of groups; given is 1 - (p <= .05 without a difference)",
        simulations.flipped,
        (5, 10, 50),
        product(rows=(1, 4)),
    ),
    Kind(
        "AUROC",
        "separability, transfer, the words alone",
        "5 groups of each class; any AUROC, 1 observed included",
        simulations.auroc,
        (5, 10, 50, 100),
        product(at=(0.5, 0.6, 0.9, 0.99), icc=(0.6,), rows=(1, 3)),
    ),
    Kind(
        "AUROC, median over layers",
        "`compare`",
        "5 groups of each class",
        simulations.auroc_median,
        (5, 10, 50),
        product(at=(0.6, 0.9, 0.99)),
    ),
    Kind(
        "AUROC of the best layer",
        "separability, transfer: `auroc_*_over_layers`",
        "5 groups of each class; any number of layers",
        simulations.best_layer,
        (5, 10, 50),
        product(at=(0.5, 0.6, 0.9, 0.99)),
    ),
    Kind(
        "difference of two AUROCs",
        "`compare`; claims 2b, 4a",
        "5 groups of each class, the same prompts",
        simulations.auroc_pair,
        (5, 10, 50),
        product(first=(0.6, 0.9, 0.99), second=(0.6, 0.99)),
    ),
    Kind(
        "TPR at 1 % FPR",
        "separability",
        "100 negative rows of 5 groups; conservative",
        simulations.tpr,
        (100, 400),
        product(at=(0.6, 0.9, 0.99), rows=(1, 2)),
    ),
    Kind(
        "Cohen's kappa", "agreement of judges", f"{2 * FEW} groups", simulations.kappa, (2 * FEW, 50, 200),
        product(agree=(0.3, 0.8, 0.98), rows=(1, 3)),
    ),
    Kind(
        "Pearson's correlation",
        "attribution against exact effects",
        f"{FEW} groups",
        simulations.pearson,
        GROUPS,
        product(at=(0.0, 0.5, 0.95), rows=(1, 12)),
    ),
    Kind(
        "share over wrappers and pairs",
        "behaviour of the organism",
        "5 wrappers and 5 pairs",
        simulations.two_way,
        (5, 6, 12),
        product(share_of=(0.1, 0.5, 0.9), icc=(0.2, 0.6)),
    ),
    Kind(
        "contrast over seeds and wrappers",
        "the replication; on the bases that there are",
        "5 wrappers, 8 seeds of each of 2 bases, normal effects of wrappers and seeds",
        simulations.crossed,
        (5, 6, 12),
        product(of_wrapper=(0.05, 0.2), of_seed=(0.05, 0.2)),
    ),
    Kind(
        "share from a harness's error",
        "`eval`",
        f"{FEW} tasks, not all alike",
        simulations.harness,
        GROUPS,
        product(at=(0.3, 0.5, 0.8)),
    ),
)  # fmt: skip


def simulated(kind: Kind, n: int) -> pd.DataFrame:
    """A row for each setting and number of groups; draws depend on the kind and setting alone."""
    rows = []
    for setting, groups in itertools.product(kind.settings, kind.groups):
        words = ", ".join(f"{name} {value}" for name, value in setting.items())
        rng = np.random.default_rng(zlib.crc32(f"{kind.name} {words} {groups}".encode()))
        trial = kind.simulate(rng, n, groups, **setting)
        held = (trial.low <= trial.truth + 1e-12) & (trial.truth - 1e-12 <= trial.high)
        rows.append(
            {
                "kind": kind.name,
                "groups": groups,
                "setting": words,
                "coverage": held.mean(),
                "error": np.sqrt(held.mean() * (1 - held.mean()) / len(held)),
                "width": np.nanmean(trial.high - trial.low),
                "bootstrap width": trial.before,
                "bootstrap coverage": trial.before_covers,
            }
        )
    return pd.DataFrame(rows)


def summary(kind: Kind, cells: Any) -> dict[str, str]:
    """The kind's row of the table."""
    least: Any = cells.loc[cells["coverage"].idxmin()]
    where = f"{least['groups']}: {least['setting']}"
    ratio = (cells["width"] / cells["bootstrap width"]).replace(np.inf, np.nan)
    fewest = cells["groups"] == kind.groups[0]
    before = "n/a"
    if ratio.notna().any():
        before = f"{ratio[fewest].median():.2f} at {kind.groups[0]} groups, {ratio[~fewest].median():.2f} above"
    covered = cells["bootstrap coverage"]
    return {
        "kind": kind.name,
        "used for": kind.used,
        "stated range": kind.ranges,
        "settings": str(len(cells)),
        "mean coverage": f"{cells['coverage'].mean():.3f}",
        "least coverage": f"{least['coverage']:.3f} ± {least['error']:.3f} ({where})",
        "mean width": f"{cells['width'].mean():.2f}",
        "width / bootstrap's": before,
        "the bootstrap's coverage, least and mean": (
            f"{covered.min():.2f}, {covered.mean():.2f}" if covered.notna().any() else "n/a"
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--simulations", type=int, default=5_000)
    parser.add_argument("--only", nargs="+", choices=[kind.name for kind in KINDS])
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = []
    for kind in KINDS:
        if options.only and kind.name not in options.only:
            continue
        cells = simulated(kind, options.simulations)
        rows.append(summary(kind, cells))
        low = cells.loc[cells["coverage"] < 0.935, ["groups", "setting", "coverage"]]
        print(f"{kind.name}: {rows[-1]['mean coverage']}, {rows[-1]['least coverage']}", flush=True)
        for _, row in low.iterrows():
            print(f"    {row['groups']} groups, {row['setting']}: {row['coverage']:.3f}", flush=True)
    head = f"{options.simulations:,} simulations a setting; nominal 95 %; ± Monte Carlo standard error of a setting"
    text = f"{head}\n\n{markdown(pd.DataFrame(rows))}"
    publish({"interval-coverage": text}, write=options.write, is_part=options.only is not None)


if __name__ == "__main__":
    main()
