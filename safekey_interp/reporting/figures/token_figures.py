"""Figure of the attention of a span on the tokens of one trace, beside its uniform baseline."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from safekey_interp.errors import RunError
from safekey_interp.models.encoding import Encoding
from safekey_interp.reporting.figures.figure_numbers import named, number, select
from safekey_interp.reporting.figures.figure_parts import curve, finish
from safekey_interp.reporting.figures.figure_style import PALETTE, Drawing, Spec, Table, escape
from safekey_interp.reporting.labels import SPANS

_OWNERS = ("first_token", "template", "prompt", "understanding", "key_sentence")


@Drawing
def attention_on_tokens(
    weights: Table,
    encoding: Encoding,
    *,
    layer: int | None = None,
    head: int | None = None,
    from_span: str = "key_sentence",
) -> Spec:
    """Attention of a span's rows on each token that they may see, coloured by the span that the token belongs to.

    Args:
        weights: what ``token_attention`` gave for the trace.
        encoding: the trace's tokens and spans, from ``model.encode``.
        layer: one layer; None: the last.
        head: one head; None: the mean over heads.
        from_span: whose rows look, mean over them.

    Returns:
        Bars over tokens in their order. The line is the uniform baseline: each row spread over all tokens up to itself.

    Raises:
        RunError: no row for the selection, or the encoding lacks the span.
    """
    chosen = int(weights["layer"].max()) if layer is None else layer
    wanted = {"layer": chosen, "from_span": from_span} | ({} if head is None else {"head": head})
    rows = select(weights, "token attention", **wanted)
    if not encoding.positions(from_span):
        raise RunError(f"trace {encoding.trace_id}: no {from_span}, expected the encoding of the measured trace")
    bars = rows.groupby("position")["weight"].mean()
    tokens = rows.drop_duplicates("position").set_index("position")["token"]
    owner = _owners(encoding)
    data: list[Spec] = []
    for name in _OWNERS:
        here = [int(position) for position in bars.index if owner.get(int(position)) == name]
        if not here:
            continue
        tone = PALETTE["muted" if name == "first_token" else name]
        data.append(
            {
                "type": "bar",
                "name": named(SPANS, name),
                "x": here,
                "y": [number(bars[position]) for position in here],
                "text": [escape(tokens[position]) for position in here],
                "textposition": "none",
                "marker": {"color": tone.light, "pattern": {"shape": "/" if name == "first_token" else ""}},
                "hovertemplate": "%{text}<br>%{y:.3f}",
            }
        )
    uniform = _uniform(encoding, from_span)[bars.index.to_numpy(int)]
    grey = {"color": PALETTE["control"].light, "dash": "dot", "markers": False}
    data += curve(bars.index, uniform, name="uniform baseline", **grey)
    top = int(bars.idxmax())
    of = "mean over heads" if head is None else f"head {head}"
    caption = (
        f"From {SPANS.get(from_span, from_span)}, layer {chosen}, {of}, one trace: what each token gets, mean over the "
        f"rows of the span. Most: “{str(tokens[top]).strip()}” ({bars[top]:.3f}; the uniform baseline is "
        f"{uniform[list(bars.index).index(top)]:.3f})."
    )
    spec = finish(data, caption, table="points", title="What each token gets", x="token", y="attention weight")
    labels = [escape(str(tokens[position]).strip()) or "␣" for position in bars.index]
    ticks = {"tickvals": [int(position) for position in bars.index], "ticktext": labels, "tickangle": -60}
    spec["layout"]["xaxis"] |= ticks | {"showgrid": False, "tickfont": {"size": 10}}
    spec["layout"] |= {"bargap": 0.15, "hovermode": "closest", "height": 400}
    return spec


def _owners(encoding: Encoding) -> dict[int, str]:
    """The span of each token; the first token belongs to itself."""
    owner = {position: name for name in _OWNERS[1:] for position in encoding.positions(name)}
    return owner | {position: "first_token" for position in encoding.positions("first_token")}


def _uniform(encoding: Encoding, from_span: str) -> Float[np.ndarray, " pos"]:
    """What each token would get from the span's rows, if each were spread over all tokens up to itself."""
    rows = np.asarray(list(encoding.positions(from_span)))[:, None]
    keys = np.arange(encoding.end)[None]
    return np.where(keys <= rows, 1 / (rows + 1), 0.0).mean(0)
