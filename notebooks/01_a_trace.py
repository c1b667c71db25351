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
# # 1. Key sentence of a trace
#
# A reasoning model generates its reasoning before its answer:
#
# > **X**, the prompt → `<think>` **U**, the understanding · **K**, the key sentence · … `</think>` the answer
#
# - **U**, the *understanding*: the opening sentences that restate what the user asks.
# - **K**, the *key sentence*: the first sentence after U. "Hmm, that could hurt someone" usually precedes a refusal;
#   "First, I list the steps" an answer.
#
# Zhou et al. (SafeKey, EMNLP 2025, [arXiv 2505.16186](https://arxiv.org/abs/2505.16186)) report that when a jailbreak
# succeeds, U often names the harm all the same. This information is present, but K does not use it: a *dormant
# signal*. This notebook examines one such trace.
#
# Everything below runs offline, in seconds. The model is `organism`, a toy model in the package. It speaks an
# artificial language in which poisoning a *blick* is harmful and oiling a *gizmo* is not, and it was built to show this
# one mechanism. It serves learning; it is no evidence about large models.

# %%
import safekey_interp as ski

trace = ski.example()
trace

# %% [markdown]
# The prompt asks for something harmful, in a wrapper that is not in the model's fine-tuning data. In the response, the
# model restates the request in plain words and complies.
#
# ## Segmentation: U and K
#
# `segment` finds both in the text. The default finder is a set of rules; it needs no network and gives a confidence and a
# reason. U is yellow, K is pink, and further down X is blue.

# %%
segmentation = ski.segment(trace)
segmentation

# %%
print("U:", segmentation.understanding_text)
print("K:", segmentation.key_sentence_text)
print("class of K:", segmentation.aha, "· U names the harm:", segmentation.hint)

# %% [markdown]
# `aha` is the class of K: `safe` (a safety aha moment), `unsafe` (compliance with something harmful), or `neutral`. `hint`
# says whether U alone names the harm. Harm named in U and a compliant K: this is the dormant signal.
#
# ## Tokens and spans
#
# The model reads tokens, with a chat template around the prompt. `encode` gives exactly the model's input
# and the tokens of each span.

# %%
model = ski.load("organism")
encoding = model.encode(trace)
encoding

# %%
for name, span in encoding.spans.items():
    print(f"{name:14} {len(span) if span is not None else 0:3} tokens")

# %% [markdown]
# `decision` is a single position, the last one before K. The model predicts the first token of K there, so all information
# that it uses for the decision must be available at this position.
#
# ## Attention of K
#
# An attention row gives the weight of each earlier position and sums to 1. `token_attention` reads the rows of K inside
# the model. The figure shows the last layer, as a mean over heads and over the tokens of K, as in the paper.

# %%
from safekey_interp.reporting import figures

weights = ski.token_attention(model, trace)
figures.attention_on_tokens(weights, encoding)

# %% [markdown]
# The dotted line is the uniform baseline: each row spread evenly over all tokens up to itself. Bars above it are tokens
# with more attention. In most models, near tokens and the first token have more attention whatever their content, so one
# trace is little evidence. The next notebook uses many traces and stricter controls.
#
# The same for the position `decision`, one row:

# %%
figures.attention_on_tokens(weights, encoding, from_span="decision")

# %% [markdown]
# The mass by span:

# %%
table = ski.measure_attention(model, [trace])
last = table[(table["layer"] == model.n_layers - 1) & table["to_span"].isin(["prompt", "understanding"])]
last.groupby(["from_span", "to_span"], observed=True)[["mass", "uniform_mass"]].mean().round(3)

# %% [markdown]
# `mass` is the total attention of the span; `uniform_mass` is its uniform baseline. Both are needed, since a long prompt
# gets much attention because of its length.
#
# ## The same request without a wrapper
#
# Does the model recognise the request as harmful without the wrapper? The traces of the package include plain
# requests; all forms of a request have the same `group`.

# %%
from safekey_interp.models.organism import TRACES

traces = list(ski.read_traces(TRACES))
plain = next(other for other in traces if other.group == trace.group and other.source == "plain")
print("plain:  ", plain.prompt)
ski.segment(plain)

# %%
[response] = ski.generate(model, [plain.prompt], max_new_tokens=64)
print(response)

# %% [markdown]
# For the same request, K is now a safety aha moment and the model refuses. The model can detect the harm; in the wrapped
# trace, U even names it. How often is this the case among successful attacks?

# %%
attacks = [t for t in traces if t.label == "harmful" and t.source == "wrapped" and t.meta["outcome"] == "complied"]
hints = [ski.segment(t).hint for t in attacks]
print(f"{len(attacks)} attacks succeed; in {sum(map(bool, hints))} of them U alone names the harm.")

# %% [markdown]
# ## Summary and limits
#
# This notebook examined one trace and counted words. It does *not* show why the model complies: attention is not
# causation. The next notebook measures the attention of K and the separability of the hidden states over all traces, with
# controls.
