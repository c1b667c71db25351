"""Question 7, cost of a training step with the two losses, against plain fine-tuning and the literal implementation.

Counted, not timed, so that the same seed gives the same numbers: multiply-adds of matrix products in the forward and
backward pass (attention by its plain formula), and bytes kept between the two, on the models' own answers, batch by
batch. Times: ``python -m analysis.cost`` (entries ``training-step``…).

- ``SFT``: language modelling only.
- ``ours``: both losses; K's second prediction reads only the tokens from the response's start to the end of K.
- ``literal``: as the reference does it, the model twice in full, the second time with the prompt masked, all logits
  both times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from analysis.paper.export import Answer
from analysis.paper.models import Bench
from analysis.paper.responses import mean_of
from analysis.paper.sheets import Composition, in_words, toy_in_words
from analysis.paper.verdicts import Measured
from safekey_interp.errors import InputError, RunError
from safekey_interp.models.model import Model
from safekey_interp.models.safety_head import SafetyHead
from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.figure_grid import Panel
from safekey_interp.training import TrainingConfig
from safekey_interp.training.batch import TrainingBatch, collate
from safekey_interp.training.batch_loss import BatchLoss
from safekey_interp.training.examples import Example, prepare_examples
from safekey_interp.training.losses import head_loss

NAME = "fig_cost"
ROWS, BATCHES = 8, 12
ROWS_IN_A_LANGUAGE = 2
"""Rows of a batch of a language model: eight of SmolLM2 took 20 GB."""
WEIGHT = 0.2
WAYS = {"ours": "SafeKey, ours", "literal": "SafeKey, literal"}
COUNTS = {"operations": "operations", "bytes": "bytes kept"}


def answer(bench: Bench) -> Answer:
    """The figure, and what it says of claim 7a, which is this project's own.

    Raises:
        RunError: no answer has U and K to train on.
    """
    name = bench.names[-1]
    if name not in bench.probes:
        raise RunError(f"{name} has no answers with a key sentence, expected some to train on")
    model = bench.model(name)
    try:
        config = TrainingConfig(out=str(bench.out / "unused"), held_out=0.0, max_length=1024, seed=bench.seed)
        examples = list(prepare_examples(model, bench.answers(name), config).train)
    except InputError as error:
        raise RunError(str(error)) from error
    n = ROWS if bench.is_toy(name) else ROWS_IN_A_LANGUAGE
    batches = [examples[at : at + n] for at in range(0, len(examples), n)][:BATCHES]
    counts = []
    bench.progress.stage(f"{name}: steps", len(batches))
    with _in_training(model):
        for batch in batches:
            counts.append(_counts(model, batch))
            bench.progress.advance(1)
    counted = pd.DataFrame(counts)
    rows = []
    for count, words in COUNTS.items():
        for way, series in WAYS.items():
            ratio = counted[f"{way} {count}"] / counted[f"sft {count}"]
            about = {"place": words, "series": series}
            rows.append(about | mean_of(ratio, list(map(str, range(len(ratio))))))
    table = pd.DataFrame(rows)
    figure = Composition()
    spec = figures.estimates_as_bars.spec(
        table, title="Cost of a step", y="× SFT", caption="Cost of a step, over SFT", across_at=1.0
    )
    figure.add(
        [(Panel(title="A step with both losses, over SFT’s", spec=spec), table)],
        caption="Multiply-adds of matrix products and bytes kept for the backward pass, over those of SFT’s step.",
        heading="Cost of a step",
        height=240,
    )
    caption = (
        f"{figure.words()} {name}’s own answers, {len(batches)} batches of {n}{toy_in_words(bench)}. Lines: 95 % "
        "over batches. Counts are exact; short answers make U and K, and so our share, large."
    )
    return Answer(
        sheets=[
            figure.sheet(
                name=NAME,
                title="What do the two losses cost?",
                caption=caption,
                seed=bench.seed,
                table=in_words(table),
                table_caption="Over SFT's step on the same batch, 95 % over batches (n)",
                source=bench.source(),
            )
        ],
        measured=[_claim(bench, name, counted, n)],
    )


def _counts(model: Model, rows: list[Example]) -> dict[str, float]:
    counts: dict[str, float] = {}
    for way, step in _steps(model, rows).items():
        with _attention(model, "eager"), FlopCounterMode(display=False) as counter:
            step().backward()
        counts[f"{way} operations"] = float(counter.get_total_flops())
        model.hf.zero_grad(set_to_none=True)
        kept: dict[int, int] = {}
        with saved_tensors_hooks(lambda tensor, kept=kept: _keep(tensor, kept), lambda tensor: tensor):
            loss = step()
        counts[f"{way} bytes"] = float(sum(kept.values()))
        del loss
    return counts


def _keep(tensor: torch.Tensor, kept: dict[int, int]) -> torch.Tensor:
    """Count what is kept, each storage once, without the weights, which are there anyway."""
    if not isinstance(tensor, torch.nn.Parameter):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
    return tensor


def _steps(model: Model, rows: list[Example]) -> dict[str, Callable[[], torch.Tensor]]:
    torch.manual_seed(0)
    head = SafetyHead(model.d_model)
    encodings, labels = [row.encoding for row in rows], [row.label for row in rows]

    def sft() -> torch.Tensor:
        sums = BatchLoss(model.hf, None)(collate(encodings, labels, layout=None))
        return sums.lm

    def ours() -> torch.Tensor:
        sums = BatchLoss(model.hf, head)(collate(encodings, labels))
        return sums.lm + WEIGHT * sums.head + WEIGHT * sums.query_mask

    def literal() -> torch.Tensor:
        return _literal(model.hf, head, collate(encodings, labels, layout=None))

    return {"sft": sft, "ours": ours, "literal": literal}


def _literal(hf: Any, head: SafetyHead, batch: TrainingBatch) -> torch.Tensor:
    ids, targets = batch.input_ids, batch.response[:, 1:]
    out = hf(input_ids=ids, output_hidden_states=True, use_cache=False)
    lm = functional.cross_entropy(out.logits[:, :-1][targets].float(), ids[:, 1:][targets], reduction="sum")
    by_head = head_loss(head(out.hidden_states[-1], batch.understanding, batch.context), batch.harmful, batch.counted)
    first = batch.response.int().argmax(1)
    mask = (torch.arange(ids.shape[1])[None] >= first[:, None]).long()
    key = batch.key[:, 1:]
    again = hf(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1][key]
    return lm + WEIGHT * by_head + WEIGHT * functional.cross_entropy(again.float(), ids[:, 1:][key], reduction="sum")


@contextmanager
def _in_training(model: Model) -> Iterator[None]:
    """The model is the bench's: it is given back as it was."""
    before, wanted = model.hf.training, [parameter.requires_grad for parameter in model.hf.parameters()]
    model.hf.requires_grad_(True).train()
    try:
        yield
    finally:
        model.hf.train(before)
        for parameter, want in zip(model.hf.parameters(), wanted, strict=True):
            parameter.requires_grad_(want)


@contextmanager
def _attention(model: Model, implementation: str) -> Iterator[None]:
    """Matrix products are counted; the fused kernels of a CPU are not."""
    before = model.hf.config._attn_implementation
    model.hf.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.hf.set_attn_implementation(before)


def _claim(bench: Bench, name: str, counted: pd.DataFrame, n_rows: int) -> Measured:
    ours, literal = (counted[f"{way} operations"] / counted["sft operations"] for way in ("ours", "literal"))
    interval = mean_of(literal - ours, list(map(str, range(len(ours)))))
    return Measured(
        claim="7a",
        evidence="operations",
        model=name,
        control_value=f"ours {ours.mean():.2f}, literal {literal.mean():.2f}",
        note=f"n: batches of {n_rows}; counted, not timed",
        toy=bench.is_toy(name),
        **interval,
    )
