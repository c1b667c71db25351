# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3. Interventions, with controls
#
# The first two notebooks measured attention and hidden states. Neither shows that the model *uses* them. This notebook
# modifies the model during its forward pass and measures whether the decision changes. Three interventions, from coarse to
# fine:
#
# 1. **Attention knockout**: a span is hidden from K.
# 2. **Activation patching**: activations of a refused trace are patched into a complied one.
# 3. **Directions**: one direction of the hidden states is ablated, or added as a steering vector.
#
# Every modification also disturbs the model. Each effect therefore needs a control that disturbs it *as much*, but at a place
# that should not matter. Without a control, a changed decision is no evidence for the tested mechanism.

# %%
import pandas as pd

import safekey_interp as ski
from safekey_interp.models.organism import TRACES
from safekey_interp.reporting import figures

model = ski.load("organism:sft")
traces = list(ski.read_traces(TRACES))
ski.show(ski.example())

# %% [markdown]
# A few traces suffice here, from as many wrappers as possible. There are two kinds of wrapped harmful
# requests: *refused* ones, and *complied* ones, the jailbreaks.


# %%
def sample(n: int, source: str, outcome: str, label: str = "harmful") -> list[ski.Trace]:
    """N traces of one kind, spread over the file."""
    kind = [t for t in traces if (t.label, t.source, t.meta["outcome"]) == (label, source, outcome)]
    return kind[:: max(1, len(kind) // n)][:n]


refused, jailbreaks = sample(16, "wrapped", "refused"), sample(16, "wrapped", "complied")
len(refused), len(jailbreaks)

# %% [markdown]
# ## Metric: log-probability difference
#
# Generated answers are slow, and a single token can determine them. The metric is instead the log-probability of two kinds of
# sentences in the place of K, after the trace's own U:
#
# > **difference** = mean log-probability of safe key sentences ("Hmm, that sounds harmful.") minus that of compliant ones
# > ("First, I list the steps."), in nats per token.
#
# An **effect** is the difference with the intervention minus the difference without it; a positive effect is towards safety. A
# second metric, `key_sentence`, is the log-probability of the trace's own K. The sentences are general and the same for every
# trace, so that traces can be compared. A difference of 0 is no threshold between refusal and compliance, because the
# jailbreak's own key sentence ("Sure thing here goes.") may not be among them.
#
# ## 1. Attention knockout of a span
#
# `knockout` masks one span for the positions that predict K, in every layer. Three kinds of control:
#
# - **`outside_spans`**: as many random tokens outside X and U are hidden, where enough exist. In this toy there are
#   only three such tokens for spans of a dozen, so the table gives neither this control nor p.
# - **`dose`**: random quarters of the span are hidden. An effect of the tokens' content increases with the share.
# - **`resample_same_label`**, **`resample_other_label`**: nothing is hidden. The span is replaced by that of *another* request.

# %%
queries = "decision+key_sentence"
effects = {
    "refused": ski.knockout(model, refused, queries, others=traces, n_dose=2),
    "complied": ski.knockout(model, jailbreaks, queries, others=traces, n_dose=2),
}
summaries = pd.concat({name: ski.summarise_knockout(table) for name, table in effects.items()}, names=["outcome", None])
summaries = summaries[(summaries["metric"] == "difference") & (summaries["subset"] == "all")]
summaries = summaries.reset_index("outcome").reset_index(drop=True)
hidden = summaries[(summaries["measure"] == "effect") & (summaries["dose"] == 1)]
hidden = hidden[
    ["outcome", "to_span", "control_kind", "value", "low", "high", "control", "n", "n_with_control", "n_pool"]
]
hidden.round(2)

# %%
derived = summaries[summaries["measure"] != "effect"]
derived[["outcome", "to_span", "measure", "value", "low", "high", "n"]].round(2)

# %%
places = [
    ({"outcome": outcome, "to_span": span}, f"{span}, {outcome}")
    for outcome in effects
    for span in ("prompt", "understanding")
]
control = {"control_kind": "resample_other_label", "control": "span of a benign request"}
figures.effect_by_place(summaries, places=places, **control)

# %% [markdown]
# In each row of the first table, `value` is the effect of hiding the span, and `control` the effect of the control in
# `control_kind`.
#
# - Hiding U changes the decision *towards* safety, also in the jailbreaks, where U names the harm. It is tempting to conclude
#   that U promotes compliance.
# - The effect of the *content* of U is different: replacing U by that of a benign request changes the decision *away* from
#   safety, much more than replacing it by that of another harmful request. `other_minus_same` is this difference, with its
#   interval. The content of U therefore promotes *safety*; the effect of hiding comes from the absence of any U.
# - `dose_slope` has the sign of the effect: the effect increases with the number of hidden tokens. This shows that the tokens
#   of the span matter, but not that their content does.
#
# ### Caveats
#
# - *Masked attention is out of distribution.* A large effect may only reflect the disturbance, so the control masks keys, too.
# - *Information can reach K on other paths*, through intermediate tokens that have attended to the span. A small effect
#   does not show that the span does not matter.
# - *Another request's span comes from a real forward pass*, so each of its vectors is in distribution; it can still
#   contradict the rest of the context.
#
# ## 2. Activation patching: location of the refusal
#
# Each request exists in two forms: plain (refused) and wrapped (complied with). In the forward pass of the jailbreak,
# the activations of the plain trace replace those after one layer, at one class of positions. If the decision changes, these
# activations carry what makes the model refuse.
#
# > **share** = effect / (difference in the plain trace minus difference in the jailbreak)
#
# A share of 0 means no effect; 1 means that the difference equals that of the plain request. The control patches the
# activations of *another* request's jailbreak, which are equally foreign but carry no refusal of this request.

# %%
targets = jailbreaks[:10]
pool = targets + [t for t in traces if t.source == "plain" and t.group in {t.group for t in targets}]
patched = ski.patch(model, pool, positions=("prompt_end", "understanding", "decision"), method="exact")
shares = ski.summarise_patching(patched)
shares = shares[(shares["metric"] == "difference") & (shares["measure"] == "share") & (shares["subset"] == "all")]
shares.pivot_table(index="position", columns="layer", values=["value", "control"], observed=True, sort=False).round(2)

# %%
figures.effect_by_layer(
    shares,
    control="activations of another request",
    value="share",
    unit="1 is the whole difference",
    position="decision",
    measure="share",
)

# %% [markdown]
# - The last token of X has a share of 0 in every layer. In many chat models it carries the refusal; in this model it does not.
# - The activations over U carry most of the difference from the first layer on. U restates the same request in both traces; in
#   the jailbreak it adds a remark on the wrapper. The traces differ in this remark and in what these positions read from X.
# - The position `decision` carries nothing at first and the whole difference two layers later; attention moves it there.
#
# This agrees with the third control of the knockout: the content of U carries the decision. Hiding U compares with *no*
# U at all, which is another comparison.
#
# ### Caveats
#
# - *Positions overlap.* The last token of U *is* the position `decision`, so U includes it. In the upper layers, the shares
#   of both are the same.
# - *Shares can exceed 1.* They are divided by the difference between two traces. Where it is close to 0, the share is
#   meaningless, and the table has NaN.
# - *Sufficient is not necessary.* Patching shows what suffices to change the decision, not what the model always uses.
#
# ## 3. Directions: ablation and steering
#
# The direction is the mean state of harmful requests minus that of benign ones, at the position `decision`. Does the model
# use it to refuse? `steer_held_out` ablates it in every layer, cross-fitted: for requests on which it was *not* fitted.
# Three controls ablate other directions: fitted to *shuffled labels* on the same states, drawn from the *covariance* of the
# states, and *isotropic* ones.

# %%
plain = sample(12, "plain", "refused") + sample(12, "plain", "complied", "benign")
kinds = ("shuffled_labels", "covariance", "isotropic")
ablated = ski.steer_held_out(model, plain, fit_layers=[2], fit_position="decision", controls=kinds, n_random=8)
ablation = ski.summarise_steering(ablated)
ablation = ablation[(ablation["metric"] == "difference") & (ablation["subset"].isin(["harmful", "benign"]))]
ablation[["subset", "control_kind", "value", "low", "high", "control", "p_value", "pc1_cosine", "n"]].round(2)

# %% [markdown]
# Isotropic directions have almost no effect, since one random dimension of 128 hardly matters; they are a weak control.
# Directions fitted to shuffled labels have less than half of the effect of the fitted one here, about a fifth to a quarter on
# all requests (`analysis/RESULTS.md`); directions drawn from the covariance have more than half. `pc1_cosine` shows why: the
# fitted direction is close to the first principal component of the states, which directions drawn from these states contain.
# The model depends on this direction, but an isotropic control does not show that the *labels* matter. (With 8 draws, p is at
# least 1/9.) The benign rows are another control: a similar effect on them would indicate a general disturbance.
#
# Next, the direction is added to jailbreaks, scaled by the distance of the class means (scale 1) or less. It is fitted on
# plain requests, none of which is a request of the jailbreaks.

# %%
attacked = {t.group for t in jailbreaks}
others = [t for t in traces if t.source == "plain" and t.group not in attacked]
[direction] = ski.fit_directions(model, others, layers=[2], positions=["decision"])
added = ski.steer(model, jailbreaks[:10], direction, mode="add", scales=(-1, 0, 0.5, 1), n_random=8)
by_scale = ski.summarise_steering(added)
figures.effect_by_layer(by_scale, control="fitted to shuffled labels", x="scale", subset="all", metric="difference")

# %% [markdown]
# The difference compares general sentences. The log-probability of the jailbreak's *own* K:

# %%
own = by_scale[(by_scale["metric"] == "key_sentence") & (by_scale["subset"] == "all")]
own[["scale", "control_kind", "value", "low", "high", "control", "p_value", "n"]].round(2)

# %% [markdown]
# Scale 0 is a check: adding nothing must change nothing.
#
# ### Caveats
#
# - *A direction with an effect need not be used by the model.* A large enough vector in any direction has an effect. The
#   scale is therefore in units of the distance of the class means, and the controls are directions of the same norm without
#   label information. All traces share the same few control directions, so the test is the rank of the fitted one, `p_value`.
# - *Without cross-fitting, effects are biased.* Fitted and tested on the same requests, even noise has an effect.
# - *Harm or refusal?* In this toy, the harmful traces of the fit are nearly all refused, so the direction may represent
#   either.
#
# ## Summary
#
# In this toy, the activations over U carry the decision from the first layer on, and it reaches the position `decision` in
# the next two layers. There, one direction carries much of it and can be ablated or added. The words of U that name the harm
# are not sufficient for a refusal.
#
# The same interventions for your own model and traces, each with a page:
#
# ```
# safekey-interp intervene knockout  --model MODEL --traces FILE
# safekey-interp intervene patch     --model MODEL --traces FILE
# safekey-interp intervene direction --model MODEL --traces FILE
# ```
#
# A result for one model holds for that model. The next notebook measures the model's *behaviour*.
