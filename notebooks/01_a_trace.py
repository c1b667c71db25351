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
# # 1. A trace: where a reasoning model decides
#
# A reasoning model does not answer at once. It first writes down what it thinks:
#
# > **X**, the prompt → `<think>` **U**, what it understood · **K**, the key sentence · … `</think>` the answer
#
# - **U**, the *understanding*: the opening sentences that say again what the user asks.
# - **K**, the *key sentence*: the first sentence after U. It decides. "Hmm, that could hurt someone" leads to a refusal;
#   "First, I list the steps" leads to an answer.
#
# Zhou et al. (SafeKey, EMNLP 2025, [arXiv 2505.16186](https://arxiv.org/abs/2505.16186)) noticed that when a jailbreak
# succeeds, U often names the harm all the same. The model wrote the warning down, and then did not use it: a *dormant
# signal*. Here we look at one such trace.
#
# Everything below runs offline, in seconds. The model is `organism`, a small toy that comes with the
# package. It speaks a small made-up language in which poisoning a *blick* is harmful and oiling a *gizmo* is not, and it was
# built to show this one mechanism. It is for learning; it is no evidence about large models.

# %%
import safekey_interp as ski

trace = ski.example()
trace

# %% [markdown]
# The prompt asks for something harmful, wrapped in a way that the model did not meet while it learnt to refuse. Read the
# response: the model says what the user wants, in plain words, and goes ahead.
#
# ## Where are U and K?
#
# `segment` finds them in the text. The default finder is a set of rules; it needs no network and says how sure it is and
# why. Yellow is U, pink is K; further down, blue is X.

# %%
found = ski.segment(trace)
found

# %%
print("U:", found.understanding_text)
print("K:", found.key_sentence_text)
print("K decides:", found.aha, "· U names the harm:", found.hint)

# %% [markdown]
# `aha` says what K decides: `safe` (a safety aha moment), `unsafe` (a go-ahead on something harmful), or `neutral`. `hint`
# says whether U alone names the harm. *Harm named, and a go-ahead*: that is the dormant signal.
#
# ## What does the model see?
#
# Not words but tokens, and not the response alone: a chat template stands around the prompt. `encode` makes exactly the text
# that the model would have seen, and says which tokens belong to which span.

# %%
model = ski.load("organism")
encoding = model.encode(trace)
encoding

# %%
for name, span in encoding.spans.items():
    print(f"{name:14} {len(span) if span is not None else 0:3} tokens")

# %% [markdown]
# `decision` is a single position, the last one before K. The model predicts K's first token from there, so whatever it uses
# to decide, it must have by then.
#
# ## What does K look at?
#
# Attention says how much each position takes from each earlier one; a row of it sums to 1. `token_attention` reads it inside
# the model for the rows of K. Here is the last layer, mean over heads, mean over K's tokens: the paper's choice.

# %%
from safekey_interp.reporting import figures

weights = ski.token_attention(model, trace)
figures.attention_on_tokens(weights, encoding)

# %% [markdown]
# The dotted line is what *even* attention would give: each row spread over all tokens up to itself. Bars above it are tokens
# that get more than that. Near tokens and the first token often do in every model, whatever they say, so one picture of one
# trace proves little. The next notebook takes many traces and stricter controls.
#
# The same for the deciding position, one row:

# %%
figures.attention_on_tokens(weights, encoding, from_span="decision")

# %% [markdown]
# How much is that for each span?

# %%
table = ski.measure_attention(model, [trace])
last = table[(table["layer"] == model.n_layers - 1) & table["to_span"].isin(["prompt", "understanding"])]
last.groupby(["from_span", "to_span"], observed=True)[["mass", "uniform_mass"]].mean().round(3)

# %% [markdown]
# `mass` is the attention that the span gets in all; `uniform_mass` is what even attention would give to it. A number without
# the second says little: a long prompt gets much attention just for being long.
#
# ## The same request, plainly asked
#
# Does the model not know that this is harmful? Ask it without the wrapper. The traces that come with the package hold plain
# requests, too; `group` ties the forms of one request together.

# %%
from safekey_interp.models.organism import TRACES

traces = list(ski.read_traces(TRACES))
plain = next(other for other in traces if other.group == trace.group and other.source == "plain")
print("plain:  ", plain.prompt)
ski.segment(plain)

# %%
[fresh] = ski.generate(model, [plain.prompt], max_new_tokens=64)
print(fresh)

# %% [markdown]
# The same harm, and now K is a safety aha moment and the model refuses. So the model can tell; in the wrapped trace it even
# wrote it down. How often does that happen, among harmful requests in wrappers that go through?

# %%
attacks = [t for t in traces if t.label == "harmful" and t.source == "wrapped" and t.meta["outcome"] == "complied"]
named = [ski.segment(t).hint for t in attacks]
print(f"{len(attacks)} attacks succeed; in {sum(map(bool, named))} of them U alone names the harm.")

# %% [markdown]
# ## What we did, and what we did not
#
# We looked at one trace and counted a few words. We did *not* show why the model goes ahead: attention is not cause. The next
# notebook measures over all traces what K looks at and what the hidden states know, each beside what chance would give.
