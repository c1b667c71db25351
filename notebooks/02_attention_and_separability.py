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
# # 2. Attention and separability, each beside its controls
#
# The first notebook looked at one trace. Here we take all that come with the package: requests that are harmful or benign,
# asked plainly or inside a wrapper, and what the toy model answered. Two questions:
#
# 1. **What does the key sentence K look at**, the prompt X or the understanding U?
# 2. **What do the hidden states know** before K is written?
#
# For each: a number, an interval, and what chance would give. Most of the lesson is about the last. The numbers are about a
# toy that was built to show one mechanism; the controls are the same for any model.

# %%
from collections import Counter

import pandas as pd

import safekey_interp as ski
from safekey_interp.models.organism import TRACES
from safekey_interp.reporting import figures

model = ski.load("organism")
traces = list(ski.read_traces(TRACES))
groups = {trace.trace_id: trace.group for trace in traces}
Counter((trace.source, trace.label) for trace in traces)

# %% [markdown]
# `group` ties all forms of one request. Intervals draw whole groups, and probes are tested on groups that they never saw:
# otherwise the same request, reworded, would stand on both sides and every number would flatter itself.
#
# ## What does K look at?
#
# One row for each trace, layer, head and pair of spans:

# %%
attention = ski.measure_attention(model, traces)
attention.head(3)

# %% [markdown]
# Averaged over heads, then over traces, with 95 % intervals over groups. The paper's own measure is the last layer:

# %%
mass = ski.summarise_attention(attention, groups)
last = model.n_layers - 1
paper = mass[(mass["layer"] == last) & (mass["from_span"] == "key_sentence") & (mass["measure"] == "mass")]
paper[["to_span", "value", "low", "high", "n"]].round(3)

# %% [markdown]
# ### How this can mislead, 1: length
#
# The longer a span, the more it gets, even if the model does not care. `uniform_mass` is what the span would get if every row
# spread its attention evenly; `lift` is mass over that, so 1 is "no more than its length".

# %%
k_rows = mass[(mass["layer"] == last) & (mass["from_span"] == "key_sentence")]
k_rows.pivot_table(index="to_span", columns="measure", values="value", observed=True)[
    ["mass", "uniform_mass", "lift"]
].round(3)

# %% [markdown]
# ### How this can mislead, 2: the first token
#
# Many models park attention that means nothing on the first token. What is left for the others then shrinks, for all spans
# alike. `mass_rest` counts as if the first token were not there. In this toy the difference is small; in
# SmolLM2, for one, it is large (see `analysis/RESULTS.md`).

# %%
here = attention[(attention["layer"] == last) & (attention["from_span"] == "key_sentence")]
here.groupby("to_span", observed=True)[["mass", "mass_rest"]].mean().round(3)

# %% [markdown]
# ### How this can mislead, 3: distance
#
# U stands right before K, and near tokens get more, whatever they say. The uniform baseline does not know that. The
# distance-matched baseline (`matched_mass`) is what a span would get if attention were a function of distance alone, as
# U's *own* rows show it in the same layer and head. A ratio of 1 then means: distance explains it.

# %%
over_distance = mass[(mass["from_span"].isin(["key_sentence", "decision"])) & (mass["measure"] == "lift_over_matched")]
over_distance = over_distance[over_distance["to_span"].isin(["prompt", "understanding"])]
over_distance.pivot_table(index=["from_span", "to_span"], columns="layer", values="value", observed=True).round(2)

# %% [markdown]
# Compare the rows. What K gives to X and to U by raw mass need not be what it gives beyond distance. And K is not the whole
# story: the position that decides is the one *before* K (`decision`). By the time K's words are written, the choice is made.
#
# The same as a picture, for the deciding position. The grey lines are the controls.

# %%
tidy = mass.assign(subset="all", n_groups=mass["n"])
figures.mass_by_layer(tidy, from_span="decision", to_span="prompt")

# %%
figures.mass_by_layer(tidy, from_span="decision", to_span="understanding")

# %% [markdown]
# ### Plain and wrapped
#
# Does the wrapper change where the model looks? The same summary for each part of the traces, beyond distance, in the last
# layer, from the deciding position:

# %%
for source in ("plain", "wrapped"):
    ids = {trace.trace_id for trace in traces if trace.source == source and trace.label == "harmful"}
    part = ski.summarise_attention(attention[attention["trace_id"].isin(ids)], groups)
    part = part[(part["layer"] == last) & (part["from_span"] == "decision") & (part["measure"] == "lift_over_matched")]
    for span in ("prompt", "understanding"):
        row = part[part["to_span"] == span].iloc[0]
        print(
            f"{source:8} harmful, on {span:14} {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]  n = {row['n']}"
        )

# %% [markdown]
# Two things differ between plain and wrapped prompts besides the wrapper: wrapped ones are longer, and the model often goes
# ahead there. So a difference here is a hint, not a cause.
#
# ## What do the states know?
#
# A probe is a linear classifier on the hidden states: harmful or benign? AUROC is the chance that it ranks a harmful trace
# above a benign one: 0.5 is a coin, 1 is perfect. We ask at two positions: over X, and over U.

# %%
separability = ski.measure_separability(model, traces, positions=["prompt", "understanding"])
probe = separability[separability["method"] == "logistic"]
probe.pivot_table(index="position", columns="layer", values="auroc", observed=True, sort=False).round(3)

# %%
figures.auroc_by_layer(separability, position="understanding")

# %% [markdown]
# ### How this can mislead, 4: the words alone
#
# U says in plain words what is asked. A bag of words can read that, too, without any model. So the line to beat is not 0.5 but
# `text_tfidf`: the same probe on the words of the same span, in the same folds.

# %%
best = probe.loc[probe.groupby("position", sort=False)["auroc"].idxmax()].set_index("position")
words = separability[separability["method"] == "text_tfidf"].set_index("position")
numbers = ["auroc", "auroc_low", "auroc_high"]
pd.concat({"states, best layer": best[numbers], "words alone": words[numbers]}, axis=1).round(3)

# %% [markdown]
# Where the intervals overlap, the states are not shown to know more than the words that were read.
#
# ### How this can mislead, 5: the best layer
#
# The table above shows the best of several layers, picked after looking. That flatters. Read the median layer, and the
# p-value that compares the best layer with the *best* layer under shuffled labels:

# %%
pd.DataFrame(
    {
        "best layer": best["auroc"],
        "median layer": probe.groupby("position")["auroc"].median(),
        "shuffled labels, highest": probe.groupby("position")["null_auroc_high"].max(),
        "p over layers": best["p_value_over_layers"],
    }
).round(3)

# %% [markdown]
# Shuffled labels need not give 0.5. When harmful requests come in more forms than benign ones, even the size of a group gives
# the class away, and an honest shuffle keeps that. The table says so:

# %%
list(separability["note"].dropna().unique())

# %% [markdown]
# ### Does it hold where the prompt is wrapped?
#
# The strictest question: fit the probe on plain prompts, test it on wrapped ones. No request is on both sides. If the probe had
# learnt how plain requests are worded, it fails here.

# %%
transfer = ski.measure_transfer(model, traces, positions=["prompt", "understanding"])
moved = transfer[(transfer["method"] == "logistic") & (transfer["tested_on"] == "wrapped")]
moved.pivot_table(index=["position", "fitted_on"], columns="layer", values="auroc", observed=True, sort=False).round(3)

# %%
figures.transfer_by_layer(transfer, fitted_on="plain", tested_on="wrapped", position="prompt")

# %%
figures.transfer_by_layer(transfer, fitted_on="plain", tested_on="wrapped", position="understanding")

# %% [markdown]
# Compare the two pictures. A probe over X must cope with the wrapper's words, which the plain prompts never had. U is written
# in plain words whatever the wrapper, so what was learnt on plain prompts can still be read there, also in those traces
# where the model goes on to comply. That is the dormant signal, measured.
#
# ## What these numbers cannot say
#
# - *Attention is not cause.* A span may get attention and not matter, or matter through other layers.
# - *A probe is a reader of ours.* That it can read the harm does not show that the model uses it.
# - *A toy is a toy.* Whether any of it holds for a large model is a question to that model: the same calls take any causal
#   model of transformers and your own traces, and `safekey-interp probe` makes the whole page from them.
