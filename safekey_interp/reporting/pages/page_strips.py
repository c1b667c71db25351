"""Records of the strips that pages open with, by kind of page, and the figures of runs that only a strip draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from safekey_interp.interventions.effects import TESTED
from safekey_interp.interventions.intervention_record import Intervention
from safekey_interp.interventions.intervention_registry import find_intervention
from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.figure_style import Spec, Table
from safekey_interp.reporting.findings import intervention_terms as terms
from safekey_interp.reporting.findings.phrases import ROWS, cases
from safekey_interp.reporting.labels import SPAN_LETTERS
from safekey_interp.reporting.pages.benchmark_rows import differences_figure
from safekey_interp.reporting.pages.intervention_tables import largest
from safekey_interp.reporting.pages.page_strip import StripFigure, default_of
from safekey_interp.runs.run_folder import MANIFEST, Run, open_run

_MOST_PLACES = 6
"""Places of a forest plot of effects: those whose effect lies furthest from that of the control."""


def aha_of(page: Any) -> Spec | None:
    """What K decides, of a run of the built-in question."""
    traces: Table | None = page.traces
    if traces is None or not page.names.is_built_in or "condition" not in traces.columns:
        return None
    return figures.aha_by_condition.spec(traces, conditions=page.conditions)


def attention_of(page: Any) -> Spec | None:
    """Attention of a probe's pairs of spans beside its baselines."""
    by_layer, pairs = page.run.attention_by_layer, page.spans.pairs
    if by_layer is None or pairs is None:
        return None
    queries, keys = (tuple(ROWS), tuple(SPAN_LETTERS)) if page.names.is_built_in else (pairs.queries, pairs.keys)
    told = {case.subset: case.name for case in cases(by_layer, page.conditions)}
    about = {"queries": queries if len(told) == 1 else queries[:1], "keys": keys}
    return figures.attention_beside_baselines.spec(by_layer, **about, subsets=told, names=page.names)


def effects_of(run: Run) -> Spec | None:
    """The effects of an intervention beside their controls."""
    settings, summary = run.manifest.get("settings") or {}, run.summary
    intervention = find_intervention(run.manifest["intervention"]).named(settings)
    if summary is None or summary.empty or intervention.form == "scores":
        return None
    rows = terms.main_rows(intervention, summary)
    far = largest(rows, "excess" if rows["excess"].notna().any() else "value", _MOST_PLACES)
    kept, metric = rows.loc[rows.index.isin(far.index)], terms.main_metric(intervention, summary)
    columns = list(summary.columns)
    place = columns[: columns.index("subset") + 1]
    controls = {
        terms.control_name(kind, intervention): kept[place].merge(
            terms.main_rows(intervention, summary, kind=kind), on=place, how="left"
        )
        for kind in summary["control_kind"].unique()
        if kind != TESTED
    }
    most = f" (the {len(kept)} largest of {len(rows)} places)" * (len(kept) < len(rows))
    return figures.effects_beside_controls.spec(
        kept,
        places=[_place(intervention, row, run.manifest) for _, row in kept.iterrows()],
        controls=controls,
        unit=", ".join(filter(None, [terms.metric_name(intervention, metric), terms.unit_of(intervention, summary)])),
        whose=terms.traces_of(terms.main_subset(summary)) + most,
    )


def _place(intervention: Intervention, row: Any, manifest: Mapping[str, Any]) -> str:
    """The line, by its short name where it has one, and the place of a summary's row."""
    column = intervention.columns.get(intervention.lines)
    line = (column.short.get(row[intervention.lines]) if column else "") or terms.line_name(intervention, row)
    return ", ".join(filter(None, [line, terms.place_name(intervention, row, manifest.get("model") or {})]))


def effects_inside(page: Any) -> Spec | None:
    """The effects of the first run of an intervention that lies in a run's folder."""
    for manifest in sorted(page.run.path.glob(f"*/{MANIFEST}")):
        run = open_run(manifest.parent)
        if run.manifest.get("kind") == "intervention" and (spec := effects_of(run)) is not None:
            return spec
    return None


def traces_of(page: Any) -> Spec | None:
    """The effect of an intervention on each trace."""
    if page.moved is None:
        return None
    control = terms.control_name(page.moved.row["control_kind"], page.intervention)
    unit = f"{page.intervention.value}, {terms.unit_of(page.intervention, page.summary)}"
    return figures.effect_by_trace.spec(page.moved.table, control=control, unit=unit)


def differences_of(page: Any) -> Spec | None:
    """Differences of a comparison's models."""
    table: Table | None = page.run.comparison
    if table is None or not page.names:
        return None
    return figures.differences_of_models.spec(table, names=page.names, conditions=page.conditions)


def effect_panel(kind: str, *, by_layer: bool) -> Callable[[Any], Spec | None]:
    """Draws the first panel of an intervention's record that is of a kind, and is or is not over layers."""

    def draw(page: Any) -> Spec | None:
        wanted = [each for each in page.intervention.figures if each.kind == kind]
        names = [each.name for each in wanted if (each.axes == ("layer",)) == by_layer]
        return next((page.shown[name] for name in names if name in page.shown), None)

    return draw


PROBE = (
    StripFigure("strip-aha", "What K decides", aha_of, "where"),
    StripFigure("strip-attention", "Attention beside its baselines", attention_of, "what"),
    StripFigure("strip-auroc", "What the states tell, by layer", default_of("separability-curve"), "knew", "AUROC"),
    StripFigure("strip-effect", "Effect beside its controls", effects_inside),
    StripFigure("strip-heads", "Attention by head", default_of("lift-prompt"), "chance", "attention"),
    StripFigure("strip-keys", "Attention by head", default_of("lift-0"), "chance", "attention"),
    StripFigure("strip-positions", "What the states tell, by position", default_of("separability-map")),
)
INTERVENTION = (
    StripFigure("strip-effect", "Effect beside its controls", lambda page: effects_of(page.run), "did"),
    StripFigure("strip-scores", "Scores token by token", default_of("scores"), "did"),
    StripFigure("strip-map", "Effect by layer and place", effect_panel("map", by_layer=False)),
    StripFigure("strip-layers", "Effect by layer", effect_panel("lines", by_layer=True)),
    StripFigure("strip-doses", "Effect by dose", effect_panel("lines", by_layer=False)),
    StripFigure("strip-traces", "Effect on each trace", traces_of),
)
COMPARISON = (
    StripFigure("strip-differences", "What differs", differences_of, "did"),
    StripFigure("strip-attention", "What they look at", default_of("looks-decision"), "what"),
    StripFigure("strip-auroc", "What their states tell", default_of("auroc"), "knew"),
    StripFigure("strip-scores", "Benchmarks", default_of("benchmark-scores"), "benchmarks"),
    StripFigure("strip-layers", "Attention on X by layer", default_of("layers-prompt")),
    StripFigure("strip-aha", "K turns safe", default_of("share-aha"), "did", "K turns safe"),
)
SERIES = (
    StripFigure("strip-aha", "K turns safe", default_of("step-aha-harmful"), "did", "K turns safe"),
    StripFigure("strip-attention", "What they look at", default_of("step-looks-decision"), "what"),
    StripFigure("strip-auroc", "What their states tell", default_of("step-auroc-decision"), "knew", "before K"),
    StripFigure("strip-attacks", "Answered in full", default_of("step-attack-success-harmful"), "did", "answered in"),
    StripFigure("strip-unlabelled", "K turns safe", default_of("step-aha-unlabelled"), "did", "K turns safe"),
    StripFigure("strip-refusal", "Refused", default_of("step-refusal-unlabelled"), "did", "refused"),
)
TRAINING = (
    StripFigure("strip-losses", "Language modelling", default_of("loss-lm"), "fell", "Language modelling"),
    StripFigure("strip-aha", "Safe minus compliant K", default_of("aha-difference"), "moved", "key sentences"),
    StripFigure("strip-attention", "Attention by step", default_of("attention-steps"), "moved", "attention"),
    StripFigure("strip-auroc", "What the states tell", default_of("auroc-ends"), "moved", "AUROC"),
)
BENCHMARKS = (
    StripFigure("strip-scores", "Scores", default_of("benchmark-scores"), "benchmarks"),
    StripFigure("strip-differences", "Differences", lambda page: differences_figure(page.run.benchmarks, page.names)),
)
