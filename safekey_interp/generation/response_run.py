"""Generation run: requests answered in turn and written to a file, resumed after a stop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from safekey_interp.capture.pass_cost import SERVER, Cost, CostElsewhere, counted_passes
from safekey_interp.errors import InputError
from safekey_interp.generation.local_engine import LocalEngine
from safekey_interp.generation.requests import Engine, Request, check_different, samples
from safekey_interp.generation.response_cost import response_cost
from safekey_interp.generation.response_file import ResponseFile, keys_in, known_settings
from safekey_interp.generation.sampling import Sampling
from safekey_interp.models.unknown_tokens import UnknownTokens
from safekey_interp.progress import Progress, open_progress


class Written(NamedTuple):
    """A file of responses."""

    path: Path
    """What ``read_traces`` reads."""
    n: int
    """Requested responses, all of them in the file."""
    n_new: int
    """Those of them that were not there before."""
    n_cut: int
    """Those of the new ones that the largest number of tokens cut."""
    max_new_tokens: int
    """That number."""


def write_responses(
    engine: Engine,
    requests: Iterable[Request],
    *,
    out: str | Path,
    sampling: Sampling | None = None,
    about: Mapping[str, Any] | None = None,
    allow_unknown: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Ask for every response that a file does not hold yet, and add it there.

    Args:
        engine: who answers.
        requests: what is asked, each ``sampling.n`` times.
        out: a name that ends in .jsonl; next to it is NAME.settings.json, which states how they were made.
        sampling: how responses are drawn; greedy when None. A file keeps the largest number of tokens that it began
            with when none is given.
        about: what else is written down when the file begins.
        allow_unknown: accept prompts of which more than 5 % of the tokens are unknown to the model's tokenizer.
        overwrite: delete responses of other settings.
        progress: called with the progress; a bar in a notebook, and none elsewhere, when None.

    Returns:
        The file and its counts.

    Raises:
        InputError: nothing to ask, or two requests with the same key.
        ModelError: the engine gives up, or left some without an answer; the others are in the file.
        RunError: the file cannot be used; :meth:`ResponseFile.open` says when.
        TraceError: a prompt that the model cannot read; nothing is asked then.
    """
    how = sampling or Sampling()
    wanted = list(samples(requests, how.n))
    if not wanted:
        raise InputError("nothing to generate: no prompts")
    check_different(wanted)
    _check_known(engine, wanted, allowed=allow_unknown)
    path = Path(out)
    if how.max_new_tokens is None:
        known = (known_settings(path) or {}).get("sampling", {}).get("max_new_tokens")
        limit = known if isinstance(known, int) and not overwrite else engine.usual_limit(wanted)
        how = replace(how, max_new_tokens=limit)
    settings = {"engine": dict(engine.record()), "sampling": how.record()}
    n_new = n_cut = 0
    local = engine if isinstance(engine, LocalEngine) else None
    with open_progress(progress) as tell, ExitStack() as opened:
        if tell.is_dry:  # which opens no file
            known = keys_in(path, settings)
            left = [request for request in wanted if request.key not in known]
            tell.starts(lambda: _cost_of(engine, left, how))
        file = opened.enter_context(ResponseFile.open(path, settings, about=about, overwrite=overwrite))
        missing = file.missing(wanted)
        cost = tell.starts(lambda: _cost_of(engine, missing, how))
        tell.stage("generating", len(wanted), cost and cost.passes)
        tell.advance(len(wanted) - len(missing))
        if local is not None:
            opened.enter_context(counted_passes(local.model, tell.passed))
        for answer in engine.generate(missing, how) if missing else ():
            file.add(answer)
            tell.advance(1)
            n_new, n_cut = n_new + 1, n_cut + answer.cut
    return Written(path, len(wanted), n_new, n_cut, how.max_new_tokens or 0)


def _check_known(engine: Engine, requests: Iterable[Request], *, allowed: bool) -> None:
    tokenizer, record = getattr(engine, "tokenizer", None), engine.record()
    if tokenizer is None or allowed:  # an endpoint's tokens are not known here
        return
    unknown = UnknownTokens(tokenizer)
    for request in requests:
        if request.sample == 0:
            unknown.add_trace(request.trace, response=False)
            unknown.add(request.prefill)
    unknown.check(str(record.get("spec") or record.get("model") or engine.name))


def _cost_of(engine: Engine, requests: list[Request], sampling: Sampling) -> Cost | CostElsewhere:
    if isinstance(engine, LocalEngine):
        return response_cost(engine, requests, sampling)
    return CostElsewhere(len(requests), SERVER)
