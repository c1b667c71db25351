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
# # 5. Training, probe snapshots, and alarms
#
# SafeKey (Zhou et al., EMNLP 2025, [arXiv 2505.16186](https://arxiv.org/abs/2505.16186)) trains models to use the dormant
# signal. It adds two losses to language modelling:
#
# - a **safety head** on the states over X and U classifies prompts as harmful or benign, so that the states encode the label;
# - **query-mask modelling** predicts K with the prompt masked, so that K must depend on U.
#
# This notebook trains a toy with both, in seconds, on the CPU. Three questions follow. Did the losses decrease? Did attention
# and separability *change*? Can a probe raise an alarm during generation?

# %%
import random
import tempfile

import pandas as pd

import safekey_interp as ski
from safekey_interp.models.organism import TRACES
from safekey_interp.models.organism.finetuning import Mix, finetuning_examples
from safekey_interp.reporting import figures

examples = finetuning_examples(Mix(examples=600), seed=1)
traces = list(ski.read_traces(TRACES))
model = ski.load("organism:base")
ski.show(examples[1], finder="given")

# %% [markdown]
# The examples are requests with target responses: refusals of harmful ones, answers to benign ones. None of
# their requests is among the test traces. `organism:base` knows the language and complies with everything.
#
# ## Training
#
# Every setting has a default, the paper's where there is one; the size of the toy needs others. A part of the
# requests is held out. `probe_every` takes probe snapshots on them before the first step, during training, and at the end.

# %%
folder = tempfile.TemporaryDirectory()  # for your own runs, for example runs/my-training
config = ski.TrainingConfig(
    out=f"{folder.name}/run",
    finder="given",
    auxiliary_epochs=None,
    max_steps=40,
    batch_size=16,
    micro_batch_size=16,
    learning_rate=1e-3,
    held_out=0.15,
    log_every=4,
    evaluate_every=10,
    probe_every=20,
    probe_traces=32,
    save_every=40,
)
run = ski.train(model, examples, config)
run

# %% [markdown]
# ## Losses by step
#
# On the training examples, nearly every loss decreases. The relevant line is the held-out loss.

# %%
figures.loss_by_step(run.steps, run.held_out, term="lm")

# %%
run.held_out[["step", "lm", "head", "query_mask", "rows"]].round(3)

# %% [markdown]
# - `lm` is in nats per token of the response, `head` in nats per trace (chance is 0.69), `query_mask` in nats per token of K.
# - *Caveats.* A loss measures the likelihood of the examples, not the model's behaviour. `head` is the loss of a classifier
#   that is trained with the model: it can decrease because the head has learnt, with unchanged states.
#
# ## Log-probability difference of key sentences by step
#
# The log-probability of safe minus compliant key sentences after U, at each snapshot, on held-out requests:

# %%
figures.aha_by_step(run.aha)

# %% [markdown]
# Compare *both* lines. At first the difference increases for benign requests as well: the model learns the new sentences before
# it learns when to use them. The harmful requests alone would suggest success half-way.
#
# The behaviour on new requests:


# %%
def sample(n: int, source: str, label: str) -> list[ski.Trace]:
    """N traces of one kind, spread over the file."""
    kind = [t for t in traces if (t.source, t.label) == (source, label)]
    return kind[:: len(kind) // n][:n]


prompts = [t for source in ("plain", "wrapped") for label in ("harmful", "benign") for t in sample(70, source, label)]
answered = [
    t.with_(response=answer, given={})
    for t, answer in zip(prompts, ski.generate(model, prompts, max_new_tokens=64), strict=True)
]
judged = pd.DataFrame(
    {"source": t.source, "label": t.label, "judged": ski.judge_refusal(t.prompt, t.response).label or "not judged"}
    for t in answered
)
judged.groupby(["source", "label"], sort=False)["judged"].value_counts().unstack(fill_value=0)

# %% [markdown]
# ## Attention and separability before and after training
#
# Both are measured on the same held-out traces with the same texts, so that only the weights differ.

# %%
figures.lift_before_after(run.table("attention_by_layer"), from_span="decision", to_span="understanding")

# %%
figures.auroc_before_after(run.separability, position="understanding")

# %% [markdown]
# - *Attention* relative to its distance-matched baseline (1: explained by distance) shows whether training increased the
#   attention on U.
# - *Separability* can hardly increase where it was high before. U restates the request in words, so the text baseline separates
#   the classes before and after.
# - *Caveats.* This is one run with one seed. To attribute the changes to the two losses, compare with a run without
#   them (`head_weight=0, query_mask_weight=0`) and several seeds. `analysis/RESULTS.md` has such comparisons.
#
# ## Alarm during generation
#
# The states encode the harm before the answer. Every generated token is therefore scored, and a score above a threshold
# raises an alarm. This needs three parts of the data without common requests: one to fit the direction,
# one to set the threshold, one to test both. Otherwise the results are biased.


# %%
def split(seed: int) -> list[list[ski.Trace]]:
    """Three parts of the traces without common requests."""
    groups = sorted({t.group for t in answered})
    random.Random(seed).shuffle(groups)
    parts = [set(groups[start::3]) for start in range(3)]
    return [[t for t in answered if t.group in part] for part in parts]


fitting, calibrating, testing = split(seed=0)
[direction] = ski.fit_directions(model, fitting, layers=[2], positions=["decision"])
threshold = ski.calibrate(model, calibrating, direction, false_positive_rate=0.1)
threshold

# %% [markdown]
# The threshold is split conformal: another benign trace *from the same distribution* exceeds it with a probability of at most
# 10 %, for any distribution of the scores. On a few harmful requests:

# %%
for attack in [t for t in testing if t.label == "harmful"][::9]:
    text = ""
    for token in ski.watch(model, attack, direction, threshold=threshold, sampling=ski.Sampling(max_new_tokens=64)):
        text += token.text
        if token.alarm:
            text += f"  << ALARM, token {token.number}, score {token.score:.1f}"
            break  # generation stops when the loop stops
    print(f"{attack.prompt}\n{text}\n")

# %% [markdown]
# Some alarms come during the understanding; some requests raise none. The rates of alarms on harmful and benign requests,
# over several splits, since one split has few requests:


# %%
def alarms(seed: int) -> pd.Series:
    """Shares of test traces that raise the alarm, by label; the parts have no requests in common."""
    fitting, calibrating, testing = split(seed)
    [scorer] = ski.fit_directions(model, fitting, layers=[2], positions=["decision"])
    limit = ski.calibrate(model, calibrating, scorer, false_positive_rate=0.1).value
    scores = ski.measure_trajectory(model, testing, scorer, controls=())
    written = scores[~scores["part"].isin(["template", "prompt"])]
    largest = written.groupby(["label", "trace_id"], observed=True)["score"].max()
    return (largest > limit).groupby("label").mean()


rates = pd.DataFrame({f"split {seed}": alarms(seed) for seed in range(6)})
rates.assign(mean=rates.mean(axis=1)).round(2)

# %%
scores = ski.measure_trajectory(model, testing, direction, n_random=10)
figures.score_by_offset(ski.summarise_trajectory(scores, offsets=(-12, 12)))

# %% [markdown]
# Offset 0 is the first token of K. The grey band is for directions fitted to shuffled labels.
#
# ### Caveats
#
# - *The guarantee holds for prompts from the calibration's distribution.* For other benign prompts, such as new wrappers, the
#   rate can differ.
# - *The guaranteed rate is a mean* over draws of the calibration traces. The rate of one draw can differ considerably, the more
#   so because all forms of a request are drawn together. Use many requests for the calibration.
# - *An alarm on a harmful prompt is not a failure of the model.* A model that names the harm and refuses also raises it.
#   Interpret it together with the model's behaviour.
#
# ## Training of other models
#
# ```
# safekey-interp train train/safekey.yaml model=MODEL traces=[FILE] out=runs/mine
# ```
#
# trains with the paper's settings; with `accelerate launch`, on several GPUs. The last notebook is about your own models and
# data.

# %%
folder.cleanup()
