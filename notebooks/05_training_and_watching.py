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
# # 5. Training a model, and watching it
#
# SafeKey (Zhou et al., EMNLP 2025, [arXiv 2505.16186](https://arxiv.org/abs/2505.16186)) trains the dormant signal awake.
# Besides the usual loss, it adds two:
#
# - a **safety head** reads the states over X and U and must tell harmful from benign, so that the states carry it;
# - **query masking** asks for K with the prompt out of sight, so that K must come from U.
#
# We train a toy with both, for seconds, on the CPU. Then three questions. Did the losses fall? Did what K looks at, and what
# the states know, *change*? And can a probe raise an alarm while the model is still writing?

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
# The examples are requests with the responses that the model is to learn: harmful ones refused, benign ones answered. None of
# their requests is among the traces on which we test. `organism:base` knows the language and answers everything.
#
# ## Training
#
# Every setting has a default, which is the paper's where the paper has one; here the toy's size asks for others. A part of the
# requests is held out. `probe_every` has the probes look at those before the first step, on the way, and at the end.

# %%
folder = tempfile.TemporaryDirectory()  # a run folder of yours would be runs/my-training
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
# ## Did the losses fall?
#
# On the examples that it learns from, nearly every loss falls. What counts is the held-out line.

# %%
figures.loss_by_step(run.steps, run.held_out, term="lm")

# %%
run.held_out[["step", "lm", "head", "query_mask", "rows"]].round(3)

# %% [markdown]
# - `lm` in nats per token of the response, `head` in nats per trace (a coin is 0.69), `query_mask` in nats per token of K.
# - *How this misleads.* A loss says how likely the examples' texts are, not what the model does. And `head` is the loss of a
#   classifier that is trained along: it may fall because the head has learnt, with the model's states as they were.
#
# ## Did the decision change?
#
# How likely are safe key sentences, less go-aheads, behind U? The run asked at each look, on held-out requests:

# %%
figures.aha_by_step(run.aha)

# %% [markdown]
# Look at *both* lines. At first the difference rises for benign requests as well: the model learns the new sentences before
# it learns when to use them. Had we watched the harmful ones alone, half-way would have looked like success.
#
# And what does it do, on new requests?


# %%
def some(n: int, source: str, label: str) -> list[ski.Trace]:
    """So many traces of one kind, spread over the file."""
    kind = [t for t in traces if (t.source, t.label) == (source, label)]
    return kind[:: len(kind) // n][:n]


asked = [t for source in ("plain", "wrapped") for label in ("harmful", "benign") for t in some(70, source, label)]
answered = [
    t.with_(response=answer, given={})
    for t, answer in zip(asked, ski.generate(model, asked, max_new_tokens=64), strict=True)
]
did = pd.DataFrame(
    {"source": t.source, "label": t.label, "did": ski.judge_refusal(t.prompt, t.response).label or "not judged"}
    for t in answered
)
did.groupby(["source", "label"], sort=False)["did"].value_counts().unstack(fill_value=0)

# %% [markdown]
# ## Did attention and separability move?
#
# Before and after, on the same held-out traces with the same texts, so that only the weights differ.

# %%
figures.lift_before_after(run.table("attention_by_layer"), from_span="decision", to_span="understanding")

# %%
figures.auroc_before_after(run.separability, position="understanding")

# %% [markdown]
# - *Attention* over its distance-matched baseline (1: distance explains it) shows whether training turned the row to U.
# - *Separability* can hardly rise where it was high before. U says in words what is asked, so the words alone tell the classes
#   apart, before and after.
# - *How this misleads.* One run, one seed. Whether the two extra losses did this, or any fine-tuning would, needs a run without
#   them (`head_weight=0, query_mask_weight=0`) and several seeds. See `analysis/RESULTS.md` for such comparisons.
#
# ## Watching: an alarm while the model writes
#
# The states know of the harm before the answer is there. So score every token as it is written, and raise an alarm when a
# score passes a threshold. That takes three parts of the data, and no request may be in two of them: one to fit the direction,
# one to set the threshold, one to test both. Whoever mixes them gets any number they like.


# %%
def split(seed: int) -> list[list[ski.Trace]]:
    """Three parts of the answers, each with requests of its own."""
    groups = sorted({t.group for t in answered})
    random.Random(seed).shuffle(groups)
    parts = [set(groups[start::3]) for start in range(3)]
    return [[t for t in answered if t.group in part] for part in parts]


fitting, calibrating, testing = split(seed=0)
[direction] = ski.fit_directions(model, fitting, layers=[2], position="decision")
threshold = ski.calibrate(model, calibrating, direction, false_positive_rate=0.1)
threshold

# %% [markdown]
# The threshold is conformal: a further benign trace *of the same kind* passes it with a probability of at most 10 %,
# whatever the scores look like. Live, on a few harmful requests:

# %%
for attack in [t for t in testing if t.label == "harmful"][::9]:
    text = ""
    for token in ski.watch(model, attack, direction, threshold=threshold, sampling=ski.Sampling(max_new_tokens=64)):
        text += token.text
        if token.alarm:
            text += f"  << ALARM, token {token.number}, score {token.score:.1f}"
            break  # stop iterating, and the model stops writing
    print(f"{attack.prompt}\n{text}\n")

# %% [markdown]
# Some are caught while the model still says what it understood; some go through. How many, and does the promise hold on benign
# ones? One split has few requests, so we look at several:


# %%
def alarms(seed: int) -> pd.Series:
    """Shares of traces that raise the alarm, by label, on requests that neither part before has seen."""
    fitting, calibrating, testing = split(seed)
    [reader] = ski.fit_directions(model, fitting, layers=[2], position="decision")
    limit = ski.calibrate(model, calibrating, reader, false_positive_rate=0.1).value
    scores = ski.measure_trajectory(model, testing, reader, controls=())
    written = scores[~scores["part"].isin(["template", "prompt"])]
    largest = written.groupby(["label", "trace_id"], observed=True)["score"].max()
    return (largest > limit).groupby("label").mean()


rates = pd.DataFrame({f"split {seed}": alarms(seed) for seed in range(6)})
rates.assign(mean=rates.mean(axis=1)).round(2)

# %%
scores = ski.measure_trajectory(model, testing, direction, n_random=10)
figures.score_by_offset(ski.summarise_trajectory(scores, offsets=(-12, 12)))

# %% [markdown]
# Offset 0 is K's first token. The grey band is where directions lie that were fitted to shuffled labels.
#
# ### How this can mislead
#
# - *The promise is for prompts like those of calibration.* Other benign prompts, other rate. A new wrapper is another kind.
# - *The promised rate is a mean* over draws of the calibration traces. One draw can lie well off, the more so as the forms of
#   one request come together. To rely on it, calibrate on many requests.
# - *An alarm on harmful prompts is no failure of the model.* A model that names the harm and refuses raises it, too. Read it
#   beside what the model does.
#
# ## On a real model
#
# ```
# safekey-interp train train/safekey.yaml model=MODEL traces=[FILE] out=runs/mine
# ```
#
# starts the same with the paper's settings; with `accelerate launch`, over several cards. The last notebook takes a model and
# data of your own.

# %%
folder.cleanup()
