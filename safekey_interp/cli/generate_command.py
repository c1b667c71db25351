"""Command ``safekey-interp generate``: from a file of prompts to a file of responses that grows and resumes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from safekey_interp.cli.options import Started, progress_of, with_options
from safekey_interp.cli.shared import quiet_libraries, say, say_reading, traces_of, typed
from safekey_interp.data.reading_settings import GroupedReadingSettings
from safekey_interp.errors import InputError
from safekey_interp.generation.sampling_settings import Sampling
from safekey_interp.models.checkpoints import check_revision
from safekey_interp.models.load_settings import CheckpointSettings
from safekey_interp.runs.settings import option_values
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings

if TYPE_CHECKING:
    from safekey_interp.data.trace_reader import TraceSource
    from safekey_interp.generation.requests import Engine, Request
    from safekey_interp.generation.response_run import Written

app = typer.Typer()
_PREFILLS = ("none", "understanding", "key_sentence", "swap")
_DEPTHS = re.compile(r"[0-9]{1,5}%?(,[0-9]{1,5}%?)*")


class _Prefill(NamedTuple):
    kind: str
    depths: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()
    most: int = 0


@app.command()
@with_options
def generate(
    ctx: typer.Context,
    *,
    prompts: Annotated[
        list[str],
        typer.Option(
            help="File of prompts or traces (JSONL, JSON, CSV, Parquet), glob, or -; may be given several times."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File of responses, .jsonl; a file that is there is resumed.")],
    model: Annotated[
        str | None,
        typer.Option(help="Hub id, folder, .gguf file, or a name that `models` lists; with --endpoint, a name there."),
    ] = None,
    sampling: Sampling,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Responses at once. Default: 16; 8 of an endpoint, 256 of vLLM.")
    ] = None,
    prefill: Annotated[
        str,
        typer.Option(
            help="What responses begin with, of each trace's own: none, understanding, key_sentence, numbers of tokens "
            "before K (0,5,10) or parts of them (0%,50%,100%), or swap (key sentences of four kinds)."
        ),
    ] = "none",
    resample: Annotated[
        str | None,
        typer.Option(
            help="`sentences`: draw --n responses before each sentence of the trace's reasoning and behind the last, "
            "with --temperature above 0."
        ),
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="First sentences that --resample takes.")] = 12,
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="Ask an OpenAI-compatible endpoint, such as http://localhost:8000/v1. Its key: SAFEKEY_LLM_API_KEY."
        ),
    ] = None,
    vllm: Annotated[bool, typer.Option("--vllm", help="Run the model with vLLM.")] = False,
    loading: CheckpointSettings,
    segmentation: SegmentationSettings,
    reading: GroupedReadingSettings,
    starting: Started,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete responses of other settings.")] = False,
) -> None:
    """Generate the responses and print how many there are."""
    prefilled = _parse_prefill(prefill)
    if resample is not None:
        prefilled = _resampled(resample, prefilled, sampling, most)
    if out.suffix != ".jsonl":
        raise InputError(f"--out {out}: expected a name that ends in .jsonl")
    if endpoint is not None:
        local = (loading.device, loading.dtype, loading.revision, loading.adapter)
        _check_endpoint(prefilled, vllm=vllm, local=local)
    if vllm and (loading.device or loading.adapter):
        raise InputError("--vllm: runs on its own devices and merges no adapter; leave --device and --adapter out")
    check_revision(model or "organism", loading.revision)
    source = traces_of(prompts, reading, segmentation.delimiters)
    with progress_of(starting) as bar:
        bar.stage("loading the model", None)
        quiet_libraries()
        from safekey_interp.generation.response_run import write_responses

        sized: dict[str, Any] = {} if batch_size is None else {"batch_size": batch_size}
        engine: Engine
        if endpoint is not None:
            engine, tokenizer = _remote(endpoint, model, batch_size), None
        elif vllm:
            from safekey_interp.generation.vllm_engine import VllmEngine

            options = {name: value for name, value in loading.to_dict().items() if name not in ("device", "adapter")}
            engine = VllmEngine(model or "organism", **options, **sized)
            tokenizer = engine.tokenizer
        else:
            from safekey_interp.generation.local_engine import LocalEngine
            from safekey_interp.models.model import load

            engine = LocalEngine(load(model or "organism", **loading.to_dict()), **sized)
            tokenizer = engine.model.tokenizer
        requests = list(_requests(source, prefilled, tokenizer, segmentation))
        if not requests:
            asked = f"--resample {resample}" if resample else f"--prefill {prefill}"
            raise InputError(f"{asked}: no trace of {', '.join(source.names)} has that to begin with")
        written = write_responses(
            engine,
            requests,
            out=out,
            sampling=sampling,
            about={"prompts": list(source.names), "prompts_sha256": source.sha256, "command": typed(ctx)},
            allow_unknown=starting.allow_unknown,
            overwrite=overwrite,
            progress=bar,
        )
    _print_summary(written, source, requests)
    if resample is not None:
        _print_importance(written.path)
    say(str(written.path))


def _parse_prefill(text: str) -> _Prefill:
    if text in _PREFILLS:
        return _Prefill(text)
    if _DEPTHS.fullmatch(text):
        words = text.split(",")
        shares = tuple(int(word[:-1]) / 100 for word in words if word.endswith("%"))
        if all(share <= 1 for share in shares):
            return _Prefill("depth", tuple(int(word) for word in words if not word.endswith("%")), shares)
    raise InputError(
        f"--prefill: got {text!r}, expected one of {', '.join(_PREFILLS)}, numbers of tokens (0,5,10), or parts of the "
        "tokens before K (0%,50%,100%)"
    )


def _resampled(resample: str, prefill: _Prefill, sampling: Sampling, most: int) -> _Prefill:
    if resample != "sentences":
        raise InputError(f"--resample: got {resample!r}, expected sentences")
    if prefill.kind != "none":
        raise InputError("--resample, --prefill: got both, expected one; resampling says what responses begin with")
    if sampling.is_greedy:
        raise InputError("--resample: got temperature 0, which draws one response again and again; add --temperature 1")
    return _Prefill("sentences", most=most)


def _check_endpoint(prefill: _Prefill, *, vllm: bool, local: tuple[Any, ...]) -> None:
    if vllm:
        raise InputError("--endpoint, --vllm: got both, expected one; a vLLM server is an endpoint")
    if any(local):
        raise InputError("--endpoint: the model runs there; leave --device, --dtype, --revision and --adapter out")
    if prefill.kind == "depth":
        raise InputError("--prefill: an endpoint's tokens are not known here; expected a text, or a local model")


def _remote(url: str, model: str | None, concurrency: int | None) -> Engine:
    from safekey_interp.endpoint import Endpoint
    from safekey_interp.generation.remote_engine import EndpointEngine

    endpoint = Endpoint.from_environment(base_url=url, model=model)
    return EndpointEngine(endpoint, **({} if concurrency is None else {"concurrency": concurrency}))


def _requests(
    source: TraceSource, wanted: _Prefill, tokenizer: Any, segmentation: SegmentationSettings
) -> Iterator[Request]:
    from safekey_interp.generation import prefill, prefill_depth
    from safekey_interp.generation.requests import Request
    from safekey_interp.segmentation.segmenter import segment_all

    if wanted.kind == "none":
        yield from (Request(trace=trace) for trace in source)
        return
    sentences = prefill.GENERAL_SWAPS
    if wanted.kind == "swap" and tokenizer is not None:
        sentences = prefill.swap_sentences_for(tokenizer)
    traces = list(source)
    if wanted.kind == "sentences":
        from safekey_interp.generation.sentence_resampling import sentence_requests

        asked = sentence_requests(tokenizer, traces, most=wanted.most, **option_values(segmentation))
        yield from asked.requests
        return
    if wanted.kind == "depth":
        depths = {"numbers": wanted.depths, "shares": wanted.shares}
        yield from prefill_depth.depth_requests(tokenizer, traces, **depths, **option_values(segmentation)).requests
        return
    for trace, segmented in zip(traces, segment_all(traces, **option_values(segmentation)), strict=True):
        if wanted.kind == "swap":
            yield from prefill.swaps(trace, segmented, sentences)
        else:
            beginnings = prefill.beginnings(trace, segmented)
            yield from (request for request in beginnings if request.condition == wanted.kind)


def _print_importance(path: Path) -> None:
    """What keeping sentences of each part changes in how often the model refuses."""
    from safekey_interp.evaluation.judge_metrics import REFUSING
    from safekey_interp.evaluation.refusal_judge import judge_refusal
    from safekey_interp.generation.sentence_resampling import sentence_importance, summarise_importance
    from safekey_interp.reporting.findings.finding import Estimate

    def refuses(prompt: str | None, text: str) -> bool | None:
        label = judge_refusal(prompt, text).label
        return None if label is None else label in REFUSING

    found: Any = summarise_importance(sentence_importance(path, refuses))
    for row in found.itertuples():
        number = Estimate(row.importance, row.low, row.high).text("+.2f")
        of = f"{row.n_sentences:,} sentences, {row.n_groups:,} {'prompt' if row.n_groups == 1 else 'prompts'}"
        of += f", {row.n:,} responses with a verdict"
        whose = f", {row.label}" if row.label else ""
        say(f"{row.source_part.replace('_', ' ')}{whose}: refusals when kept minus when resampled {number} ({of})")


def _print_summary(written: Written, source: TraceSource, requests: list[Request]) -> None:
    """What was written, in words of at most 80 columns."""
    names = ", ".join(Path(name).name for name in source.names)
    say(f"{written.n:,} responses to {names}: {written.n_new:,} new, {written.n - written.n_new:,} from before.")
    if written.n_cut:
        say(f"{written.n_cut:,} of the new ones were cut at {written.max_new_tokens:,} tokens; see --max-new-tokens.")
    left_out = source.n_read - len({request.trace.trace_id for request in requests})
    if left_out:
        say(f"{left_out:,} of {source.n_read:,} traces do not have what is to begin with, and were left out.")
    say_reading(source.notes)
