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
# # 3. Causes, each beside its control
#
# The first two notebooks read the model: where it looks, what its states know. Neither shows that the model *uses* any of it.
# To find out, we change something inside and see whether the decision changes. Three changes, from coarse to fine:
#
# 1. **Knockout**: K may not look at a span.
# 2. **Patching**: states of a refused run take the place of states in a run that went ahead.
# 3. **A direction**: one line in the space of states is taken out, or added.
#
# Every change is also damage: a model that is cut anywhere behaves differently. So each number needs a control that does *as
# much* damage, but not to the thing that we ask about. That is what controls are for here. Without one, "the decision moved"
# says nothing about *why*.

# %%
import pandas as pd

import safekey_interp as ski
from safekey_interp.models.organism import TRACES
from safekey_interp.reporting import figures

model = ski.load("organism:sft")
traces = list(ski.read_traces(TRACES))
ski.show(ski.example())

# %% [markdown]
# We want few traces, so that this page is quick, and of as many wrappers as possible. Two kinds of harmful request in a
# wrapper: those that the model *refused*, and those that it *complied* with, the jailbreaks.


# %%
def some(n: int, source: str, outcome: str, label: str = "harmful") -> list[ski.Trace]:
    """So many traces of one kind, spread over the file."""
    kind = [t for t in traces if (t.label, t.source, t.meta["outcome"]) == (label, source, outcome)]
    return kind[:: max(1, len(kind) // n)][:n]


refused, jailbreaks = some(16, "wrapped", "refused"), some(16, "wrapped", "complied")
len(refused), len(jailbreaks)

# %% [markdown]
# ## What is measured
#
# Not whole answers: those are slow, and one lucky word decides them. We stop before K and ask how likely two kinds of
# sentence are there, behind the trace's own U:
#
# > **difference** = mean log-probability of safe key sentences ("Hmm, that sounds harmful.") less that of go-aheads ("First, I
# > list the steps."), in nats a token.
#
# An **effect** is the difference with the change less the difference without it: above 0, the change speaks for safety. Beside
# it stands `key_sentence`, how likely the trace's own K is. The sentences are general ones and the same for every trace, so
# that traces can be compared. The zero of the difference is no border between refusing and complying: a jailbreak's own
# go-ahead ("Sure thing here goes.") may be none of them.
#
# ## 1. Knockout: K may not see a span
#
# `knockout` removes attention from the positions that predict K to one span, in every layer. What would any such hole do? Three
# controls say so, each in its own way:
#
# - **`outside_spans`**: as many random tokens from outside X and U are hidden, where there are so many. In this toy there are
#   not: three tokens for spans of a dozen. The table says so and gives no p.
# - **`dose`**: random quarters of the span are hidden. An effect of what the tokens hold rises with the share.
# - **`resample_same_label`**, **`resample_other_label`**: nothing is hidden. K sees the span of *another* request in its place.

# %%
queries = "decision+key_sentence"
cut = {
    "refused": ski.knockout(model, refused, queries, others=traces, n_dose=2),
    "complied": ski.knockout(model, jailbreaks, queries, others=traces, n_dose=2),
}
summaries = pd.concat({name: ski.summarise_knockout(table) for name, table in cut.items()}, names=["outcome", None])
summaries = summaries[(summaries["metric"] == "difference") & (summaries["subset"] == "all")]
summaries = summaries.reset_index("outcome").reset_index(drop=True)
hidden = summaries[(summaries["measure"] == "effect") & (summaries["dose"] == 1)]
hidden = hidden[
    ["outcome", "to_span", "control_kind", "value", "low", "high", "control", "n", "n_with_control", "n_pool"]
]
hidden.round(2)

# %%
more = summaries[summaries["measure"] != "effect"]
more[["outcome", "to_span", "measure", "value", "low", "high", "n"]].round(2)

# %%
places = [
    ({"outcome": outcome, "to_span": span}, f"{span}, {outcome}")
    for outcome in cut
    for span in ("prompt", "understanding")
]
other = {"control_kind": "resample_other_label", "control": "a benign request's span in its place"}
figures.effect_by_place(summaries, places=places, **other)

# %% [markdown]
# Read one row of the first table: `value` is the effect of hiding the span; `control` is that of what `control_kind` names.
#
# - Hiding U moves the decision *towards* safety, also in the jailbreaks, where U names the harm. It would be tempting to say
#   that U had spoken for going ahead.
# - Look at what the *contents* of U do: with a benign request's U in its place the decision moves *away* from safety, with
#   another harmful request's far less so. `other_minus_same` is that difference, with its interval. So what U says speaks
#   *for* safety. That hiding it helps, too, is an effect of the hole: no request's U is left.
# - `dose_slope` has the sign of the effect: the more tokens are hidden, the more it moves. That shows that the span's tokens
#   matter, and not yet what they say.
#
# ### How this can mislead
#
# - *The cut is foreign to the model.* It never saw a row of attention with a hole. A large effect may only say that the model
#   stumbles, which is why the control has holes, too.
# - *What is hidden in every layer may reach K another way*, through tokens in between that have read it before. A small effect
#   does not show that the span does not matter.
# - *Another request's span is a foreign one.* It was read from a real run, so each of its vectors is one that the model makes;
#   beside *this* prompt it still contradicts what else K sees.
#
# ## 2. Patching: where does the refusal lie?
#
# The same request exists in two forms here: asked plainly (refused) and in a wrapper (complied with). We run the jailbreak,
# and after one layer, at one class of positions, we put in the states of the plain run. If the decision turns, what makes the
# model refuse was *there, in that layer*.
#
# > **share** = effect / (difference in the plain run less difference in the jailbreak)
#
# 0: nothing moved; 1: the jailbreak now decides as the plain request does. The control puts in the states of *another*
# request's jailbreak. They are as foreign, but hold no refusal of this one.

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
    control="states of another request",
    value="share",
    unit="1 is all of it",
    position="decision",
    measure="share",
)

# %% [markdown]
# - The last token of X carries nothing: 0 in every layer. In many chat models this is the place to look; here it is not.
# - The states over U carry most of it from the first layer on. In words, U asks the same in both runs; in the jailbreak it
#   adds a remark on the wrapper. What differs is that remark, and what these positions read from X.
# - The deciding position has nothing at first and all of it two layers later. In between, it was moved there.
#
# Does this agree with the knockout? With its third control: the contents of U carry the decision. Hiding U compares it with *no*
# U in sight, plain words and all, and says something else.
#
# ### How this can mislead
#
# - *Positions overlap.* Here U's last token *is* the deciding position, so the row of U includes it. In the upper layers, they
#   say the same thing.
# - *Shares can pass 1 or blow up.* They are divided by the gap between two runs. Without a gap they mean nothing, and the
#   table says NaN.
# - *Enough is not needed.* Patching shows what suffices to turn the decision in this run, not that the model always does so.
#
# ## 3. A direction: one line in the space of states
#
# Take the mean state of harmful requests less that of benign ones, at the deciding position. Is this line what the model
# reads when it refuses? `steer_held_out` takes it out of every layer, for requests on which it was *not* fitted: folds go by
# request. Three controls take out other lines: fitted to *shuffled labels* on the same states, drawn from the states'
# *covariance*, and *isotropic* ones.

# %%
plain = some(12, "plain", "refused") + some(12, "plain", "complied", "benign")
kinds = ("shuffled_labels", "covariance", "isotropic")
without = ski.steer_held_out(model, plain, fit_layers=[2], fit_position="decision", controls=kinds, n_random=8)
taken = ski.summarise_steering(without)
taken = taken[(taken["metric"] == "difference") & (taken["subset"].isin(["harmful", "benign"]))]
taken[["subset", "control_kind", "value", "low", "high", "control", "p_value", "pc1_cosine", "n"]].round(2)

# %% [markdown]
# Isotropic lines do next to nothing: one of 128 dimensions at random hardly matters. That makes them a weak control. Lines
# that were fitted to shuffled labels do much of what the fitted line does. `pc1_cosine` says why: the fitted line is all but the
# first principal component of the states, and whatever is fitted to these states contains much of it. So the model does hang on
# this line, but that the *labels* single it out is not shown by an isotropic control. (With 8 draws p is at least 1/9.) The
# benign rows are a control of another kind: if the model lost its balance on those as well, then we would only have broken it.
#
# Now the other way. Add the direction to jailbreaks, so far as the classes lie apart (scale 1) or less. It is fitted on plain
# requests, and none of these asks for the same thing as one of the jailbreaks.

# %%
asked = {t.group for t in jailbreaks}
others = [t for t in traces if t.source == "plain" and t.group not in asked]
[direction] = ski.fit_directions(model, others, layers=[2], position="decision")
added = ski.steer(model, jailbreaks[:10], direction, mode="add", scales=(-1, 0, 0.5, 1), n_random=8)
by_scale = ski.summarise_steering(added)
figures.effect_by_layer(by_scale, control="fitted to shuffled labels", x="scale", subset="all", metric="difference")

# %% [markdown]
# The difference compares general sentences. Does the jailbreak's *own* K become less likely, too?

# %%
own = by_scale[(by_scale["metric"] == "key_sentence") & (by_scale["subset"] == "all")]
own[["scale", "control_kind", "value", "low", "high", "control", "p_value", "n"]].round(2)

# %% [markdown]
# Scale 0 is a check on ourselves: adding nothing must change nothing.
#
# ### How this can mislead
#
# - *A direction that works need not be the model's own.* Push hard enough along any line, and something happens. That is why
#   the scale has a unit, the distance of the class means, and why lines of the same length that know nothing of the labels
#   stand beside it. Every trace meets the same few of them: whether the fitted line does more is a matter of its rank, `p_value`.
# - *Taken out on its own data, a direction flatters itself.* Fitted and tested on the same requests, even noise helps.
# - *Harm or refusal?* In this toy, harmful and refused are nearly the same traces at fitting time, so the line may stand for
#   either.
#
# ## What we know now
#
# In this toy, what turns the decision lies in the states over U from the first layer on and reaches the deciding position in
# the next two. There, one line carries much of it, and can be taken out or put in. The words of U, which name the harm, do
# not tip the balance by themselves.
#
# The same three changes on your own model and file, each with its page:
#
# ```
# safekey-interp intervene knockout  --model MODEL --traces FILE
# safekey-interp intervene patch     --model MODEL --traces FILE
# safekey-interp intervene direction --model MODEL --traces FILE
# ```
#
# There, too, one cause in one model is a finding about that model. The next notebook asks what the model *does*.
