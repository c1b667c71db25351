"""Cost of a comparison: of each model's responses and of its run of ``probe``, model by model.

What a model will answer is not known before it does: the probe is estimated on the responses that the prompts came
with, where they have any.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from safekey_interp.capture.pass_cost import NOTHING, Cost
from safekey_interp.errors import OnlyEstimated
from safekey_interp.experiments.probe_run import run_probe
from safekey_interp.generation.local_engine import LocalEngine
from safekey_interp.generation.requests import Request
from safekey_interp.generation.response_cost import response_cost
from safekey_interp.generation.sampling import Sampling
from safekey_interp.models.model_list import NamedModel
from safekey_interp.models.unknown_tokens import check_known
from safekey_interp.progress import Progress
from safekey_interp.runs.memory_release import release_memory

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace


class _OnlyEstimates(Progress):
    """Progress of a run that ends where its work would start."""

    def __init__(self) -> None:
        super().__init__(is_hidden=True)

    def starts(self, estimate: Callable[[], Any]) -> NoReturn:
        raise OnlyEstimated(estimate())


def comparison_cost(
    sides: Sequence[NamedModel],
    traces: Sequence[Trace],
    shown: Callable[[str], Progress],
    *,
    sampling: Sampling | None,
    probe: Mapping[str, Any],
    load_options: Mapping[str, Any],
) -> Cost:
    """What it costs to compare models; finished runs cost nothing.

    Args:
        sides: the models.
        traces: what they are given.
        shown: the progress of a model, by its name.
        sampling: how responses are drawn; None where the traces' own are kept.
        probe: options of the runs of ``probe``.
        load_options: of ``load``.
    """
    whole = NOTHING
    for side in sides:
        if side.run is not None:
            continue
        shown(side.name).stage("estimating", None)
        model = side.model(load_options)
        unknown: Any = {"response": sampling is None, "allowed": probe["allow_unknown"]}
        check_known(model.tokenizer, traces, side.name, **unknown)
        if sampling is not None:
            requests = [Request(trace=trace.with_(response="", given={}, spans={}, meta={})) for trace in traces]
            whole = whole.plus(response_cost(LocalEngine(model), requests, sampling))
        if any(trace.response for trace in traces):
            with tempfile.TemporaryDirectory(prefix="safekey-estimate-") as folder:
                try:
                    run_probe(model, list(traces), out=Path(folder) / "run", progress=_OnlyEstimates(), **probe)
                except OnlyEstimated as end:
                    whole = whole.plus(end.cost)
        del model
        release_memory()
    return whole
