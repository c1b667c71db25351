"""Attention of the last layer as the paper reports it: mean over heads, sum over a span, mean over K's tokens."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd

from safekey_interp.errors import InputError
from safekey_interp.measures.intervals import mean_interval
from safekey_interp.models.chat_template import Rendering

Style = Literal["paper", "released"]
"""How a trace is read: as the model would have seen it, or as the reference's public attention script does."""
RENDERINGS: dict[str, Rendering] = {"paper": "chat", "released": "released"}
"""How each style renders a trace."""
_PAPER_COLUMNS = (
    ("mass", "low", "high"),
    ("mass_rest", "rest_low", "rest_high"),
    ("mass_text", "text_low", "text_high"),
    ("uniform_mass",),
)


def paper_attention(table: pd.DataFrame, groups: pd.Series | None = None, *, style: Style = "paper") -> pd.DataFrame:
    """The paper's own figure: last layer, mean over heads, sum over the span, mean over K's tokens.

    The paper does not say how traces were rendered; the reference's public attention script has no chat template and
    reads the prompt and half the response. Both readings are offered, from tables measured accordingly.

    Args:
        table: from :func:`measure_attention` with the same ``style``.
        groups: group of each trace, indexed by trace_id, for the intervals; each trace its own when None.
        style: ``paper`` or ``released``.

    Returns:
        One row for the prompt and one for the understanding: to_span, layer, mass, low, high (95 %); mass_rest, the
        same without the first token, with rest_low, rest_high; mass_text, without first token and template, with
        text_low, text_high; uniform_mass, n.

    Raises:
        InputError: the table was measured in the other style.
    """
    measured = table.attrs.get("style", "paper")
    if checked_style(style) != measured:
        raise InputError(
            f"style: got {style!r} and a table measured as {measured!r}, expected the same; "
            f"measure_attention(model, traces, style={style!r}) measures one"
        )
    masses: Any = paper_masses(table)
    out = []
    for span in ("prompt", "understanding"):
        rows = masses[masses["to_span"] == span]
        trace_ids = list(rows["trace_id"])
        group = trace_ids if groups is None else list(groups.loc[trace_ids])
        values = rows[["mass", "mass_rest", "mass_text", "uniform_mass"]].to_numpy(np.float64)
        ratio = mean_interval(values, group)
        row: dict[str, Any] = {"to_span": span, "layer": table["layer"].max()}
        for i, names in enumerate(_PAPER_COLUMNS):
            row |= dict(zip(names, (ratio.value[i], ratio.low[i], ratio.high[i]), strict=False))
        out.append(row | {"n": int(ratio.n[0])})
    return pd.DataFrame(out)


def paper_masses(table: pd.DataFrame) -> pd.DataFrame:
    """What K gives to the prompt and to the understanding, by trace: last layer, mean over heads.

    Args:
        table: from :func:`measure_attention`.

    Returns:
        trace_id, to_span, mass, mass_rest (divided by the row total without the first token), mass_text (by the total
        without first token and template), uniform_mass. Ratios of means over heads; NaN where a head's whole row goes
        to what is left out.
    """
    rows: Any = table[(table["layer"] == table["layer"].max()) & (table["from_span"] == "key_sentence")]
    keys = ["trace_id", "head"]
    wide: Any = rows.pivot_table(index=keys, columns="to_span", values=["mass", "mass_rest"], observed=True)
    # A span's mass over its share without the first token is the row's total without it; these hold no first token.
    inner = [span for span in ("understanding", "key_sentence", "template") if ("mass", span) in wide]
    total = wide["mass"][inner].sum(axis=1) / wide["mass_rest"][inner].sum(axis=1)
    template = wide["mass"]["template"].fillna(0) if "template" in inner else 0.0
    out = []
    for span in ("prompt", "understanding"):
        if ("mass", span) not in wide:
            continue
        without = wide["mass_rest"][span] * total if ("mass_rest", span) in wide else np.nan
        parts = pd.DataFrame({"mass": wide["mass"][span], "rest": without, "total": total, "text": total - template})
        means: Any = parts[parts["mass"].notna()].groupby("trace_id", observed=True).mean()
        even: Any = rows[rows["to_span"] == span].groupby("trace_id", observed=True)["uniform_mass"].mean()
        out.append(
            pd.DataFrame(
                {
                    "trace_id": [str(name) for name in means.index],
                    "to_span": span,
                    "mass": means["mass"].to_numpy(),
                    "mass_rest": (means["rest"] / means["total"]).to_numpy(),
                    "mass_text": (means["rest"] / means["text"]).to_numpy(),
                    "uniform_mass": even.reindex(means.index).to_numpy(),
                }
            )
        )
    return pd.concat(out, ignore_index=True)


def checked_style(style: str) -> Style:
    """A reading's name.

    Raises:
        InputError: neither ``paper`` nor ``released``.
    """
    if style not in RENDERINGS:
        raise InputError(f"style: got {style!r}, expected 'paper' or 'released'")
    return style  # type: ignore[return-value]
