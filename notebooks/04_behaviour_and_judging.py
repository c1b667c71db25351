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
# # 4. Behaviour and judging
#
# What does a model *do* when it is asked for harm? Three steps: let it answer, let a judge say what each answer is, and count.
# Each step can go wrong in silence, so this page spends as much on the counting as on the answers.
#
# Three toys are compared here, on the same prompts:
#
# - `organism:base` learnt to answer everything,
# - `organism:sft` was then fine-tuned on refusals of plain harmful requests,
# - `organism:safekey` on the same examples, with SafeKey's two extra losses.

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
# ## 1. Ask
#
# Only the prompts of the traces are used; their responses are another model's. Decoding is greedy, so the same prompt gives
# the same answer every time.


# %%
def some(n: int, source: str, label: str) -> list[ski.Trace]:
    """So many traces of one kind, spread over the file."""
    kind = [t for t in traces if (t.source, t.label) == (source, label)]
    return kind[:: len(kind) // n][:n]


asked = [t for source in ("plain", "wrapped") for label in ("harmful", "benign") for t in some(30, source, label)]
answers = {name: ski.generate(model, asked, max_new_tokens=64) for name, model in models.items()}

jailbreak = next(n for n, t in enumerate(asked) if t.source == "wrapped" and t.label == "harmful")
for name in names:
    ski.show(asked[jailbreak].with_(trace_id=name, response=answers[name][jailbreak], given={}))

# %% [markdown]
# `max_new_tokens` is a trap: an answer that is cut before it refuses looks like one that does not refuse. Here 64 tokens are
# enough for every answer. For a reasoning model, leave it several thousand.
#
# ## 2. Judge
#
# `judge_refusal` reads the answer behind the reasoning (a model may ponder a refusal and then comply) and says which of
# three it is: a full refusal, a partial one (it declines and helps all the same), or full compliance. It needs no network and
# no language model, and shows the words that decided.

# %%
plain_harm = asked[0]
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
    for trace, answer in zip(asked, answers[name], strict=True)
)
judged.groupby(["model", "source", "prompt_label"], sort=False)["label"].value_counts().unstack(fill_value=0)

# %% [markdown]
# ### Can the judge be trusted?
#
# A judge is a classifier, and it errs. Check it on answers whose class is known. The toy's language is known by construction,
# so each shipped answer is scored by what it does: `other` answers another request than the one asked, which a judge that reads the
# answer alone takes for compliance:

# %%
known = pd.DataFrame(
    {"truth": trace.meta["outcome"], "judge": ski.judge_refusal(trace.prompt, trace.response).label or "none"}
    for trace in traces
)
pd.crosstab(known["truth"], known["judge"])

# %% [markdown]
# These answers are few and plain, so this is the best case. For the answers of large models, see how far judges agree with
# people in `analysis/RESULTS.md`, and have a second judge read the same answers (`safekey_interp.evaluation.paired_tests`).
#
# ## 3. Count
#
# Two numbers belong together: **attack success**, the share of harmful prompts that are answered in full, and
# **over-refusal**, the share of benign prompts that are refused. A model that refuses everything is perfect on the first alone.

# %%
columns = ["value", "low", "high", "interval", "n", "n_unlabelled"]
rates = pd.concat(
    [attack_success(judged, by=["model", "source"]), over_refusal(judged, by=["model", "source"])], ignore_index=True
)
rates.set_index(["measure", "source", "model"]).sort_index()[columns].round(2)

# %% [markdown]
# As a picture, the wrapped harmful prompts and the plain ones:

# %%
bars = rates.assign(subset=rates["source"], other=pd.NA, n_groups=rates["n_prompts"])
figures.share_by_model(
    bars, measure="attack_success", subsets={"plain": "asked plainly", "wrapped": "in a wrapper"}, names=names
)

# %% [markdown]
# - *Plain and wrapped apart.* In one number they would hide each other: plain requests are nearly always refused after
#   fine-tuning, wrapped ones are not.
# - *The interval* counts whole groups: one request in two forms is one observation, not two. With 30 prompts it is wide. And
#   where all answers are alike it still has a width: thirty answers without one failure leave room for a true rate of up to
#   10 % ("rule of three": 3/n).
# - *`n_unlabelled`* counts answers that the judge would not judge. They are in no rate; many of them would be a warning.
#
# ## Is one model safer than another?
#
# Overlapping intervals do not answer that: both models saw the *same* prompts. Compare them prompt by prompt.

# %%
pairs = [("organism:base", "organism:sft"), ("organism:sft", "organism:safekey")]
wrapped = judged[judged["source"] == "wrapped"]
pd.concat(
    compare_models(wrapped, first=first, second=second, counted=COMPLYING, prompt_label="harmful")
    for first, second in pairs
).round(3)

# %% [markdown]
# `difference` is second less first, with its interval over groups. `only_first` and `only_second` are the prompts on which
# just one of them complied; p (signs flipped by group) asks whether these could be tosses of a coin. If a p-value is large, that does *not*
# mean that the two are equally safe. It means that so few prompts cannot tell.
#
# ## Does K decide?
#
# If K is what decides, then another K must bring another answer, with all before it left as it was. So we stop each trace
# before K and let the model go on from its own K, from a safe one, from a go-ahead, and from a sentence that says neither.

# %%
model = models["organism:sft"]
attacks = some(30, "wrapped", "harmful")
attacked = [
    t.with_(response=answer, given={}) for t, answer in zip(asked, answers["organism:sft"], strict=True) if t in attacks
]
sentences = swap_sentences_for(model.tokenizer)
requests = [request for t in attacked for request in swaps(t, ski.segment(t), sentences)]
table = responses_table(LocalEngine(model).generate(requests, ski.Sampling(max_new_tokens=64)))
prompts = {t.trace_id: t.prompt for t in attacked}
table["refused"] = [
    ski.judge_refusal(prompts[row.trace_id], row.new_text).label == "full_refusal" for row in table.itertuples()
]
swapped = summarise_outcomes(table, "refused", baseline="own")
swapped[["condition", "rate", "low", "high", "difference", "difference_low", "difference_high", "n"]].round(2)

# %% [markdown]
# One short sentence turns the answer. The *neutral* row is the control: it says what any foreign sentence does in that
# place. Compare with it, not with "own".
#
# ### Key sentences of the model's own
#
# A given sentence is *off-policy*: the model might never write it there. So draw K from the model behind the same prompt and
# U until each kind comes, and let it go on from there. `rate` says how often a kind came; one that never came has no answer.

# %%
own = ski.resample_key_sentences(model, attacked[::3], judge=ski.judge_refusal, n_tries=16, key_tokens=36)
own["refused"] = (own["judged"] == "full_refusal").where(own["judged"].notna())
ski.summarise_rates(own)[["condition", "rate", "low", "high", "n_traces", "n_never"]].round(2)

# %%
summarise_outcomes(own, "refused")[["condition", "rate", "low", "high", "n"]].round(2)

# %% [markdown]
# ### How this can mislead
#
# - *A given sentence is not the model's own.* What follows it shows what K *can* do. What follows drawn ones shows what it
#   does, but only on the prompts where the kind came, and a kind that comes once in a hundred draws is an odd sentence.
# - *A safe K announces the refusal.* Part of the effect is that texts stay true to their beginning. That is why SafeKey trains
#   the model to write a safe K by itself.
# - *The judge may read the given words.* Not here: `new_text` is what the model wrote behind them.
#
# ## In one command
#
# The same for any models and prompts, with what each looks at and knows, and a page that shows answers side by side:
#
# ```
# safekey-interp compare organism:base organism:sft organism:safekey
# ```
#
# or `ski.run_comparison([...], prompts, out="runs/compared")`. The next notebook trains one of these models and watches it
# change.
