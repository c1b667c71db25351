"""Dose-matched control of query-mask modelling: equal cumulative gradient norms.

    python -m train.dose_match train/qmm.yaml train/kw.yaml --out train/kw-matched.yaml \
        model=… traces=[development.jsonl] [KEY=VALUE …] [--every 4] [--tolerance 0.1] [--runs runs/dose]

Trains the reference recipe (query-mask modelling) once and the control (K upweighted with the prompt visible) at
several weights, and writes the control's recipe with the weight at which

    w_key · Σ ‖∂ key / ∂ weights‖ = w_qmm · Σ ‖∂ query_mask / ∂ weights‖        each sum over the steps of its own run

up to a tolerance (interpretation: :mod:`safekey_interp.training.gradient_norms`). All pilot runs use the same traces in
the same order, so use development data and a seed that no test uses. ``--dose`` names other terms for the two sides,
such as ``head`` for the safety head.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from safekey_interp.errors import SafekeyError
from safekey_interp.models.model import load
from safekey_interp.training import TrainingConfig, read_config, train
from safekey_interp.training.gradient_norms import Pilot, dose, match_weight

WEIGHTS = {"head": "head_weight", "query_mask": "query_mask_weight", "key": "key_weight"}
"""The weight setting of each auxiliary term."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("reference", type=Path, help="recipe whose dose is matched")
    parser.add_argument("control", type=Path, help="recipe whose weight is searched")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings that override both recipes")
    parser.add_argument("--out", type=Path, required=True, help="file for the control's recipe with the matched weight")
    parser.add_argument("--dose", nargs=2, default=("query_mask", "key"), choices=WEIGHTS, metavar="TERM")
    parser.add_argument("--every", type=int, default=4, help="steps between two measurements")
    parser.add_argument("--tolerance", type=float, default=0.1, help="largest deviation of the ratio of doses from 1")
    parser.add_argument("--runs", type=Path, default=Path("runs/dose"), help="folder of the pilots")
    options = parser.parse_intermixed_args(arguments)
    try:
        target, pilots = matched(options)
    except SafekeyError as error:
        print(f"dose_match: {error}", file=sys.stderr)
        sys.exit(2)
    options.out.write_text(recipe(options, target, pilots), encoding="utf-8")
    print(
        f"{options.out}: {WEIGHTS[options.dose[1]]} {pilots[-1].weight:.4g}, ratio {pilots[-1].dose / target.dose:.3f}"
    )


def matched(options: argparse.Namespace) -> tuple[Pilot, list[Pilot]]:
    """Weight and dose of the reference, and the pilot runs of the control; the last one matches."""
    of_reference, of_control = options.dose
    reference = _config(options.reference, options, "reference")
    weight = getattr(reference, WEIGHTS[of_reference])
    target = Pilot(weight, _dose_of(reference, of_reference))
    print(f"{of_reference} at weight {weight:g}: dose {target.dose:.4g}", flush=True)

    def dose_at(weight: float) -> float:
        name = f"{of_control}-{weight:.6g}"
        config = _config(options.control, options, name, f"{WEIGHTS[of_control]}={weight!r}")
        control_dose = _dose_of(config, of_control)
        ratio = control_dose / target.dose
        print(f"{of_control} at weight {weight:.4g}: dose {control_dose:.4g}, ratio {ratio:.3f}", flush=True)
        return control_dose

    return target, match_weight(dose_at, target.dose, start=weight, tolerance=options.tolerance)


def recipe(options: argparse.Namespace, target: Pilot, pilots: Sequence[Pilot]) -> str:
    """The control's recipe with its matched weight, preceded by comments with the measured doses."""
    match = pilots[-1]
    settings = yaml.safe_load(options.control.read_text(encoding="utf-8"))
    settings |= {WEIGHTS[options.dose[1]]: float(f"{match.weight:.4g}"), "out": f"runs/{options.out.stem}"}
    comments = (
        f"# {options.control.name} at the dose of {options.reference.name}, by train/dose_match.py (ratio "
        f"{match.dose / target.dose:.2f} on pilots; at equal weights {pilots[0].dose / target.dose:.2f}):\n"
        f"# {options.dose[0]} {target.weight:g} x sum of gradient norms = {target.dose:.4g}; {options.dose[1]} "
        f"{match.weight:.4g} x = {match.dose:.4g}.\n"
    )
    return comments + yaml.safe_dump(settings, sort_keys=False)


def _config(file: Path, options: argparse.Namespace, name: str, *pairs: str) -> TrainingConfig:
    measured = (f"log_gradient_norms_every={options.every}", f"out={options.runs / name}")
    return read_config(file, [*options.settings, *pairs, *measured])


def _dose_of(config: TrainingConfig, term: str) -> float:
    run = train(load(config.model, dtype="float32"), list(config.traces), config)
    table: Any = run.table("gradient_norms")
    schedule = run.manifest["schedule"]
    weight, first = getattr(config, WEIGHTS[term]), schedule["auxiliary_from"]
    return dose(table, term, weight=weight, steps=schedule["steps"], first=first)


if __name__ == "__main__":
    main()
