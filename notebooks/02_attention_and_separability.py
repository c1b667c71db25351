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
# # 2. Attention and separability, with controls
#
# This notebook uses all traces of the package: harmful and benign requests, plain or in a wrapper, with the responses of
# the toy model. Two questions:
#
# 1. **What does the key sentence K attend to**, the prompt X or the understanding U?
# 2. **What do the hidden states encode** before K is generated?
#
# Each number has an interval and a control; most of this notebook is about the controls. The numbers describe a
# toy that was built to show one mechanism; the controls apply to any model.

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
# All forms of one request have the same `group`. Intervals are over groups, and probes are tested on groups that they were not
# fitted on; otherwise the same request, reworded, would be in training and test data, and the results would be too good.
#
# ## Attention of K
#
# One row per trace, layer, head and pair of spans:

# %%
attention = ski.measure_attention(model, traces)
attention.head(3)

# %% [markdown]
# Means over heads, then over traces, with 95 % intervals over groups. The paper's measure is the last layer:

# %%
mass = ski.summarise_attention(attention, groups)
last = model.n_layers - 1
paper = mass[(mass["layer"] == last) & (mass["from_span"] == "key_sentence") & (mass["measure"] == "mass")]
paper[["to_span", "value", "low", "high", "n"]].round(3)

# %% [markdown]
# ### Caveat 1: length
#
# A longer span gets more attention, whatever its content. `uniform_mass` is the mass if every row
# spread its attention evenly; `lift` is mass divided by it, so 1 means "no more than its length".

# %%
k_rows = mass[(mass["layer"] == last) & (mass["from_span"] == "key_sentence")]
k_rows.pivot_table(index="to_span", columns="measure", values="value", observed=True)[
    ["mass", "uniform_mass", "lift"]
].round(3)

# %% [markdown]
# ### Caveat 2: the first token
#
# In many models the first token is an attention sink, which reduces the mass of all other spans.
# `mass_rest` is the mass without the first token. In this toy the difference is small; in
# SmolLM2, for example, it is large (see `analysis/RESULTS.md`).

# %%
k_attention = attention[(attention["layer"] == last) & (attention["from_span"] == "key_sentence")]
k_attention.groupby("to_span", observed=True)[["mass", "mass_rest"]].mean().round(3)

# %% [markdown]
# ### Caveat 3: distance
#
# U stands directly before K, and near tokens get more attention, whatever their content. The uniform baseline ignores this. The
# distance-matched baseline (`matched_mass`) is the mass of a span if attention were a function of distance alone, as
# estimated from the rows of U in the same layer and head. A ratio of 1 means that distance explains the mass.

# %%
over_distance = mass[(mass["from_span"].isin(["key_sentence", "decision"])) & (mass["measure"] == "lift_over_matched")]
over_distance = over_distance[over_distance["to_span"].isin(["prompt", "understanding"])]
over_distance.pivot_table(index=["from_span", "to_span"], columns="layer", values="value", observed=True).round(2)

# %% [markdown]
# Compare the rows: the order of X and U by mass can differ from their order relative to the distance-matched baseline. The row
# that predicts the first token of K is the one *before* K (`decision`); the rows of K come after the decision.
#
# The same as figures, for the position `decision`. The grey lines are the controls.

# %%
tidy = mass.assign(subset="all", n_groups=mass["n"])
figures.mass_by_layer(tidy, from_span="decision", to_span="prompt")

# %%
figures.mass_by_layer(tidy, from_span="decision", to_span="understanding")

# %% [markdown]
# ### Plain and wrapped prompts
#
# Does the wrapper change the attention? The same summary for each condition: the ratio to the distance-matched baseline in the
# last layer, from the position `decision`:

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
# Wrapped prompts also differ from plain ones in length, and the model often complies with them. A difference here is therefore
# no evidence of causation.
#
# ## Separability of the hidden states
#
# A probe is a linear classifier of harmful and benign prompts on the hidden states. AUROC is the probability that it ranks a
# harmful trace above a benign one: 0.5 is chance, 1 is perfect. Here it is measured over X and over U.

# %%
separability = ski.measure_separability(model, traces, positions=["prompt", "understanding"])
probe = separability[separability["method"] == "logistic"]
probe.pivot_table(index="position", columns="layer", values="auroc", observed=True, sort=False).round(3)

# %%
figures.auroc_by_layer(separability, position="understanding")

# %% [markdown]
# ### Caveat 4: the text baseline
#
# U restates the request in plain words, which a bag of words can classify without any model. The baseline is therefore not 0.5
# but `text_tfidf`: the same probe on the words of the same span, with the same folds.

# %%
best = probe.loc[probe.groupby("position", sort=False)["auroc"].idxmax()].set_index("position")
words = separability[separability["method"] == "text_tfidf"].set_index("position")
numbers = ["auroc", "auroc_low", "auroc_high"]
pd.concat({"hidden states, best layer": best[numbers], "text baseline": words[numbers]}, axis=1).round(3)

# %% [markdown]
# Where the intervals overlap, there is no evidence that the states encode more than the words.
#
# ### Caveat 5: the best layer
#
# The table above shows the best of several layers, which is biased upwards. Report the median layer, and the
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
# Shuffled labels need not give 0.5. When harmful requests have more forms than benign ones, the size of a group reveals
# the class, and the shuffle preserves this. A note in the table reports it:

# %%
list(separability["note"].dropna().unique())

# %% [markdown]
# ### Transfer to wrapped prompts
#
# The strictest test: the probe is fitted on plain prompts and tested on wrapped ones, with no request in both parts. A probe
# that has learnt the wording of plain requests fails here.

# %%
transfer = ski.measure_transfer(model, traces, positions=["prompt", "understanding"])
wrapped_auroc = transfer[(transfer["method"] == "logistic") & (transfer["tested_on"] == "wrapped")]
wrapped_auroc.pivot_table(
    index=["position", "fitted_on"], columns="layer", values="auroc", observed=True, sort=False
).round(3)

# %%
figures.transfer_by_layer(transfer, fitted_on="plain", tested_on="wrapped", position="prompt")

# %%
figures.transfer_by_layer(transfer, fitted_on="plain", tested_on="wrapped", position="understanding")

# %% [markdown]
# Compare the two figures. For a probe over X, the words of the wrapper are new. U is in plain words whatever the
# wrapper, so a probe fitted on plain prompts still works there, also for traces in which the model
# complies. This measures the dormant signal.
#
# ## Limits
#
# - *Attention is not causation.* A span may get attention without an effect, or have an effect through other layers.
# - *A probe is an external classifier.* That it decodes the harm does not show that the model uses it.
# - *The model is a toy.* To test a large model, the same calls take any causal
#   model in transformers and your own traces; `safekey-interp probe` draws a page from them.
