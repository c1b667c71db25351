"""Record of attention edges cut in single heads and in sets of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safekey_interp.interventions import intervention_parts as parts
from safekey_interp.interventions.intervention_record import Column, Control, Figure, Intervention
from safekey_interp.interventions.option_record import Option

_SPANS = {"before(key_sentence)": "the token before K", "understanding": "U", "prompt": "X", "key_sentence": "K"}


def _changed(settings: Mapping[str, Any], _: Any) -> str:
    is_built_in = INTERVENTION.is_built_in(settings)
    words = _SPANS if is_built_in else {}
    queries, keys = (str(words.get(settings[name], settings[name])) for name in ("from_span", "to_span"))
    start = queries[0].upper() if is_built_in else queries[0]
    return (
        f"{start}{queries[1:]} may not see {keys}: in one head after another, in the heads that rank "
        "first on other requests together, and in all heads."
    )


def _place(row: Any) -> str:
    if row["cut"] == "head":
        return f"layer {int(row['layer'])}, head {int(row['head'])}"
    return f"{int(row['n_heads'])} head{'' if row['n_heads'] == 1 else 's'}"


INTERVENTION = Intervention(
    name="edges",
    help="Hide a span from another in single heads, in the top heads together and in all, beside random heads.",
    options=(
        Option(
            "from_span",
            "Queries from which a span is hidden.",
            default="before(key_sentence)",
            choices=_SPANS,
            is_span=True,
            aliases=("--query",),
        ),
        Option("to_span", "What is hidden.", default="understanding", choices=_SPANS, is_span=True, aliases=("--key",)),
        Option("top", "Numbers of heads that are cut together.", int, (1, 2, 4, 8), least=1, several=True),
        parts.METRIC,
        parts.LAYERS,
        parts.KEY_SENTENCES,
        Option("n_random", "Random sets of as many heads.", int, 20, least=0),
        Option("n_ranked", "Traces at most that heads are ranked on.", int, 64, least=2),
    ),
    measure="safekey_interp.interventions.edge_knockout:cut_edges",
    summarise="safekey_interp.interventions.edge_knockout:summarise_edges",
    prepare="safekey_interp.interventions.edge_knockout:prepare_edges",
    first_round="safekey_interp.interventions.edge_knockout:cut_single_heads",
    lines="cut",
    place=_place,
    columns={
        "cut": Column(label="Cut", words={"all": "all heads", "top": "the top heads", "head": "one head"}),
        "measure": Column(
            label="Effects", words={"share": "share of the cut in all heads", "effect": "effect"}, first="share"
        ),
        "head": Column(label="Head", words="head {}".format),
    },
    changed=_changed,
    effect="Cutting the edge in {line} moves {metric} by",
    reading="Below 0, what the hidden span says there made what is read out likelier.",
    figures=(
        Figure("effect-top", "Top heads together", "lines", ("n_heads",), ("measure",), where=(("cut", "top"),)),
        Figure(
            "effect-heads", "Head by head", "map", ("head",), ("measure",), has_control=False, where=(("cut", "head"),)
        ),
    ),
    controls={"random_heads": Control("as many random heads", "{n_random} draws")},
    grows_with=("layers", "--layers"),
    cheaper=(("--n-random 5", {"n_random": 5}),),
    title="Heads of {model} through which one span reads another",
    metrics=parts.SENTENCE_METRICS,
)
