"""Record of the logit lens."""

from __future__ import annotations

from safekey_interp.interventions import intervention_parts as parts
from safekey_interp.interventions.intervention_record import Control, Figure, Intervention
from safekey_interp.interventions.option_record import Option

INTERVENTION = Intervention(
    name="lens",
    help="Read every layer as if it were the last: from which on is K likely? Beside other requests' K.",
    options=(
        parts.LAYERS,
        Option(
            "n_others",
            "Other requests' key sentences as controls of each K.",
            int,
            3,
            least=0,
            plain_help="Other requests' sentences as controls, of the default metrics alone.",
        ),
        Option(
            "positions",
            "Spans whose tokens are read as they stand, in place of K and the key sentences.",
            flag="--position",
            several=True,
            is_span=True,
            is_optional=True,
            plain_help="Spans whose tokens are read as they stand.",
        ),
        Option(
            "jacobian",
            "Jacobian lens in place of the logit lens: a file, or a name of TransformerLens's registry.",
            reads="jacobian",
            is_optional=True,
        ),
        parts.METRIC,
        parts.KEY_SENTENCES,
    ),
    measure="safekey_interp.interventions.logit_lens_scores:logit_lens",
    summarise="safekey_interp.interventions.logit_lens_scores:summarise_lens",
    prepare="safekey_interp.interventions.logit_lens_scores:prepare_lens",
    changed=lambda settings, effects: (
        f"Nothing was changed: the residual stream after each of {effects['layer'].nunique()} layers was "
        + (
            "moved to the last layer by a Jacobian lens, and read there."
            if settings.get("jacobian")
            else "read as if no layer came after it."
        )
    ),
    effect="The log-probability of a token of {metric} is",
    plain_effect="Read out, {metric} is",
    reading="How likely each layer finds what is read out. Early layers need not write in the unembedding’s basis: a "
    "low value says that the lens sees nothing there, not that nothing is there.",
    figures=(Figure("effect-layers", "What each layer says, read out"),),
    controls={
        "other_requests": Control(
            "other requests’ key sentences", "{n_others} a trace", "other requests’ sentences in its place"
        )
    },
    title="From which layer on {model} says its key sentence",
    plain_title="What each layer of {model} says",
    metrics=("key_sentence", "difference", "first_difference", "safe", "go_ahead", "first_safe", "first_go_ahead"),
    value="log-probability",
    plain_value="value",
    unit="nats",
    reports="last",
)
