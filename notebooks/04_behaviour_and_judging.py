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
# # 4. Behaviour, judges and metrics
#
# How does a model respond to harmful requests? Three steps: generate responses, classify them with a judge, and compute
# rates. Each step has its own sources of error.
#
# Three toy models are compared on the same prompts:
#
# - `organism:base` was trained to comply with all requests,
# - `organism:sft` was then fine-tuned to refuse plain harmful requests,
# - `organism:safekey` was fine-tuned on the same examples with SafeKey's two losses.

# %%
import pandas as pd

import safekey_interp as ski
from safekey_interp.evaluation.judge_metrics import COMPLYING, attack_success, over_refusal
from safekey_interp.evaluation.paired_tests import compare_models
from safekey_interp.generation.local_engine import LocalEngine
from safekey_interp.generation.prefill import summarise_outcomes, swap_sentences_for, swaps
from safekey_interp.generation.requests import responses_table
from safekey_interp.models.organism import TRACES
from safekey_interp.reporting import figures

traces = list(ski.read_traces(TRACES))
names = ["organism:base", "organism:sft", "organism:safekey"]
models = {name: ski.load(name) for name in names}

# %% [markdown]
# ## 1. Responses
#
# Only the prompts of the traces are used, since their responses are another model's. Decoding is greedy and therefore
# deterministic.


# %%
def sample(n: int, source: str, label: str) -> list[ski.Trace]:
    """N traces of one kind, spread over the file."""
    kind = [t for t in traces if (t.source, t.label) == (source, label)]
    return kind[:: len(kind) // n][:n]


prompts = [t for source in ("plain", "wrapped") for label in ("harmful", "benign") for t in sample(30, source, label)]
answers = {name: ski.generate(model, prompts, max_new_tokens=64) for name, model in models.items()}

jailbreak = next(n for n, t in enumerate(prompts) if t.source == "wrapped" and t.label == "harmful")
for name in names:
    ski.show(prompts[jailbreak].with_(trace_id=name, response=answers[name][jailbreak], given={}))

# %% [markdown]
# Set `max_new_tokens` high enough: an answer that is truncated before its refusal looks like compliance. Here 64 tokens are
# enough for every answer. Reasoning models need several thousand.
#
# ## 2. Judge
#
# `judge_refusal` reads the answer after the reasoning (a model may consider a refusal and then comply) and gives one of
# three labels: full refusal, partial refusal (it declines and helps all the same), or full compliance. It needs no network and
# no language model, and quotes the deciding words.

# %%
plain_harm = prompts[0]
ski.judge_refusal(plain_harm.prompt, answers["organism:sft"][0])

# %%
judged = pd.DataFrame(
    {
        "model": name,
        "trace_id": trace.trace_id,
        "group": trace.group,
        "source": trace.source,
        "prompt_label": trace.label,
        "label": ski.judge_refusal(trace.prompt, answer).label,
    }
    for name in names
    for trace, answer in zip(prompts, answers[name], strict=True)
)
judged.groupby(["model", "source", "prompt_label"], sort=False)["label"].value_counts().unstack(fill_value=0)

# %% [markdown]
# ### Validation of the judge
#
# A judge is a classifier with errors. Validate it on answers whose class is known. The toy's language is known by construction,
# so the answers in the package are scored by their act. `other` is an answer to another request, which a judge of the
# answer alone classifies as compliance:

# %%
known = pd.DataFrame(
    {"truth": trace.meta["outcome"], "judge": ski.judge_refusal(trace.prompt, trace.response).label or "none"}
    for trace in traces
)
pd.crosstab(known["truth"], known["judge"])

# %% [markdown]
# These answers are simple, so this is the best case. For the answers of large models, `analysis/RESULTS.md` reports the
# agreement with annotators; a second judge on the same answers is another check (`safekey_interp.evaluation.paired_tests`).
#
# ## 3. Rates
#
# Two metrics belong together: **attack success**, the share of harmful prompts with full compliance, and
# **over-refusal**, the share of benign prompts that are refused. A model that refuses everything has no attack success.

# %%
columns = ["value", "low", "high", "interval", "n", "n_unlabelled"]
rates = pd.concat(
    [attack_success(judged, by=["model", "source"]), over_refusal(judged, by=["model", "source"])], ignore_index=True
)
rates.set_index(["measure", "source", "model"]).sort_index()[columns].round(2)

# %% [markdown]
# The same as a figure, for wrapped and plain harmful prompts:

# %%
bars = rates.assign(subset=rates["source"], other=pd.NA, n_groups=rates["n_prompts"])
figures.share_by_model(
    bars, measure="attack_success", subsets={"plain": "plain prompts", "wrapped": "wrapped prompts"}, names=names
)

# %% [markdown]
# - *Conditions are reported separately*: plain requests are nearly always refused after fine-tuning, wrapped ones are not, and
#   a single rate would hide this.
# - *The interval* is over groups: one request in two forms is one observation. With 30 prompts it is wide. It has a width
#   even where all answers are alike: thirty answers without a failure are compatible with a true rate of up to
#   10 % ("rule of three": 3/n).
# - *`n_unlabelled`* counts answers without a label from the judge. They are excluded from the rates; many of them are a warning.
#
# ## Paired comparison of models
#
# Overlapping intervals are not a test, since both models have the *same* prompts. Compare the models by prompt.

# %%
pairs = [("organism:base", "organism:sft"), ("organism:sft", "organism:safekey")]
wrapped = judged[judged["source"] == "wrapped"]
pd.concat(
    compare_models(wrapped, first=first, second=second, counted=COMPLYING, prompt_label="harmful")
    for first, second in pairs
).round(3)

# %% [markdown]
# `difference` is second minus first, with its interval over groups. `only_first` and `only_second` count the prompts on which
# only one of them complied; p (signs flipped by group) tests whether both are equally likely. A large p-value does *not*
# mean that the models are equally safe, only that these prompts do not distinguish them.
#
# ## Effect of K on the answer: swaps
#
# If K decides, another K must give another answer with everything before it unchanged. Each trace is therefore cut
# before K, and the model continues after its own K, a safe, a compliant, and a neutral one.

# %%
model = models["organism:sft"]
attacks = sample(30, "wrapped", "harmful")
attacked = [
    t.with_(response=answer, given={})
    for t, answer in zip(prompts, answers["organism:sft"], strict=True)
    if t in attacks
]
sentences = swap_sentences_for(model.tokenizer)
requests = [request for t in attacked for request in swaps(t, ski.segment(t), sentences)]
table = responses_table(LocalEngine(model).generate(requests, ski.Sampling(max_new_tokens=64)))
prompt_of = {t.trace_id: t.prompt for t in attacked}
table["refused"] = [
    ski.judge_refusal(prompt_of[row.trace_id], row.new_text).label == "full_refusal" for row in table.itertuples()
]
swapped = summarise_outcomes(table, "refused", baseline="own")
swapped[["condition", "rate", "low", "high", "difference", "difference_low", "difference_high", "n"]].round(2)

# %% [markdown]
# One short sentence changes the answer. The *neutral* row is the control: the effect of any inserted sentence. Compare with
# it, not with "own".
#
# ### On-policy resampling of K
#
# An inserted sentence is *off-policy*: the model might never generate it there. Instead, sample K from the model after the same
# prompt and U until each kind occurs, and continue from there. `rate` is the frequency of a kind; a kind that never occurs has
# no answer.

# %%
resampled = ski.resample_key_sentences(model, attacked[::3], judge=ski.judge_refusal, n_tries=16, key_tokens=36)
resampled["refused"] = (resampled["judged"] == "full_refusal").where(resampled["judged"].notna())
ski.summarise_rates(resampled)[["condition", "rate", "low", "high", "n_traces", "n_never"]].round(2)

# %%
summarise_outcomes(resampled, "refused")[["condition", "rate", "low", "high", "n"]].round(2)

# %% [markdown]
# ### Caveats
#
# - *Inserted sentences are off-policy.* The answers after them show which effect K *can* have. The answers after sampled ones
#   show its actual effect, but only for the prompts where the kind occurred; a kind in one of a hundred samples is atypical.
# - *A safe K announces the refusal.* Part of the effect is the consistency of texts with their beginning. SafeKey therefore trains
#   the model to generate a safe K itself.
# - *The judge must not read the inserted words.* `new_text` is the text generated after them.
#
# ## The same on the command line
#
# `compare` does the same for any models and prompts, with attention, separability, and a page with answers side by side:
#
# ```
# safekey-interp compare organism:base organism:sft organism:safekey
# ```
#
# In Python: `ski.run_comparison([...], prompts, out="runs/compared")`. The next notebook trains a model, with probe
# snapshots.
