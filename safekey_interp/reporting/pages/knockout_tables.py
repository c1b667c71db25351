"""Tables of a knockout beside that of the excess: random keys' pool, other requests' spans in place, and doses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from safekey_interp.interventions.donors import OTHER, SAME
from safekey_interp.interventions.effects import default_rows
from safekey_interp.interventions.knockout_plan import DOSES, OUTSIDE
from safekey_interp.interventions.knockout_summary import CONTRAST, CURVATURE, EFFECT, SLOPE
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.findings import intervention_terms as terms
from safekey_interp.reporting.findings.finding import estimate
from safekey_interp.reporting.pages.intervention_tables import largest, row_name, table_caption, table_number

if TYPE_CHECKING:
    from safekey_interp.interventions.intervention_record import Intervention

_PLACE = ["to_span", "layer", "head"]


def knockout_tables(intervention: Intervention, summary: Table, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The tables by name; None where the summary is not a knockout's."""
    if "n_pool" not in summary.columns:
        return None
    subset = terms.main_subset(summary)

    def measured(measure: str, dose: float = 1.0) -> Table:
        rows = default_rows(summary)
        rows = rows.loc[(rows["measure"] == measure) & (rows["dose"] == dose) & (rows["subset"] == subset)]
        return rows.loc[(rows["metric"] == terms.main_metric(intervention, summary)) & rows["value"].notna()]

    def table(places: Table, columns: list[tuple[Table, tuple[str, ...]]]) -> dict[str, Any]:
        """A row a place, the largest first where there are many; a column an estimate at the place."""
        by_place = [(rows.set_index(_PLACE), names) for rows, names in columns]
        body = []
        for _, row in largest(places, "value").iterrows():
            place = tuple(row[_PLACE])
            numbers = [
                table_number(estimate(rows.loc[place], *names)) if place in rows.index else "n/a"
                for rows, names in by_place
            ]
            body.append([row_name(intervention, row, manifest), *numbers, f"{int(row['n']):,}"])
        return {"rows": body, "n_places": len(places)}

    contrasts, slopes, doses = measured(CONTRAST), measured(SLOPE), (*DOSES, 1.0)
    donors = [terms.main_rows(intervention, summary, subset=subset, kind=kind) for kind in (OTHER, SAME)]
    steps = [measured(EFFECT, dose) for dose in doses]
    return {
        "caption": table_caption(intervention, summary, subset),
        "pool": _pool_rows(intervention, summary),
        "resampled": table(contrasts, [*((rows, terms.CONTROL) for rows in donors), (contrasts, ())]),
        "cancels": " and ".join(terms.labels_of(summary)) if terms.is_mixed(summary, subset) else "",
        "doses": table(slopes, [(rows, ()) for rows in (*steps, slopes, measured(CURVATURE))]),
        "shares": [f"{dose:g} of it" for dose in doses],
    }


def _pool_rows(intervention: Intervention, summary: Table) -> list[list[str]]:
    """On how many traces random keys outside the tested spans are a control."""
    rows = terms.main_rows(intervention, summary).drop_duplicates("to_span")
    return [
        [
            terms.line_name(intervention, row),
            f"{row['n_k']:.0f}",
            f"{row['n_pool']:.0f}",
            f"{int(row['n_with_control']) if row['control_kind'] == OUTSIDE else 0:,} of {int(row['n']):,}",
        ]
        for _, row in rows.iterrows()
    ]
