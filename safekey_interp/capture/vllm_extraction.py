"""Hidden states read by vLLM's offline engine (``ski.vllm_states``; extra ``[vllm]``), on a GPU or several.

    found = ski.vllm_states("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", traces, layers=[8, 16, 24])
    ski.measure_separability(found, traces)

The result is that of :func:`safekey_interp.states` for ``resid_post``: the residual stream behind a layer, averaged
over a position's tokens. vLLM writes it for every token of a request, at the layers asked for, into a file
(``extract_hidden_states`` with its ``ExampleHiddenStatesConnector``); each file is read and removed at once. Traces are
rendered and tokenised here, as for every local model. vLLM names a layer by what goes into the next: its number l + 1
is what leaves layer l. It computes in the checkpoint's data type, mostly bfloat16, and its arithmetic depends on what
else is in a batch, so that states differ from those of ``states`` by rounding.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from safekey_interp.capture.capture_request import CaptureRequest, expressions
from safekey_interp.capture.places import Place
from safekey_interp.capture.state_array import RowFile, StateArray, WordsRead, about_trace
from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.capture.streaming import Entry, in_chunks, prepare
from safekey_interp.errors import InputError, ModelError, NothingMeasured, first_line
from safekey_interp.models.checkpoints import check_revision, resolve
from safekey_interp.models.encoding import Encoding, check_length, encode
from safekey_interp.models.layer_numbers import layer_numbers
from safekey_interp.models.vllm_loading import import_vllm, start_vllm

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.segmentation.segmenter import Segmentation

_CONNECTOR = "ExampleHiddenStatesConnector"
_CONNECTOR_MODULE = "vllm.distributed.kv_transfer.kv_connector.v1.example_hidden_states_connector"


def vllm_states(
    spec: str,
    traces: Iterable[Trace],
    *,
    positions: Sequence[str] = ("decision",),
    layers: Sequence[int] | None = None,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    max_length: int | None = None,
    revision: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    batch_size: int = 256,
    on_batch: Callable[[int], None] = lambda n: None,
    **options: Any,
) -> StateArray:
    """Residual stream behind layers at positions of traces, read by vLLM.

    Args:
        spec: what ``load`` takes.
        traces: any number, of which ``batch_size`` are in memory at once.
        positions: span expressions, such as ``decision`` or ``last(prompt)``; the states of several tokens are
            averaged. A trace that has none of them is left out.
        layers: layers to read, negative ones counted from the last; all when None. vLLM keeps the states of every
            token at all of them until a batch is read: few layers need little memory.
        finder: finds U and K.
        delimiters: marks of the reasoning; the known families' when None.
        max_length: most tokens up to the end of what is read.
        revision: branch, tag or commit of a hub checkpoint.
        dtype: the checkpoint's own when None.
        trust_remote_code: run code that comes with a hub model.
        batch_size: traces that are handed over at once; vLLM makes its own batches of them.
        on_batch: called with the number of traces after each batch.
        **options: for ``vllm.LLM``, such as ``tensor_parallel_size`` or ``max_model_len``.

    Returns:
        The array, float32, with one component, ``resid_post``.

    Raises:
        InputError: the package vllm is missing; no trace can be measured; an unknown layer; a position that cannot be
            parsed, or that no trace has; a batch size below 1.
        ModelError: vLLM cannot load the model, or does not hand over the states of a trace's tokens.
    """
    vllm = import_vllm()
    if batch_size < 1:
        raise InputError(f"batch_size: got {batch_size}, expected at least 1")
    wanted = expressions(positions, "positions")
    if not wanted:
        raise InputError("positions: got none, expected a list of span expressions such as ['decision']")
    check_revision(spec, revision)
    checkpoint = resolve(spec)
    numbers = layer_numbers(layers, _n_layers(checkpoint.location, spec, revision, trust_remote_code))
    request = CaptureRequest(attention=False, positions=wanted, places=tuple(Place(n, "resid_post") for n in numbers))
    settings = StreamSettings(finder=finder, delimiters=delimiters, max_length=max_length)
    about, left_out = [], {}
    with tempfile.TemporaryDirectory(prefix="safekey-vllm-") as folder:
        how: Any = {"revision": revision, "dtype": dtype, "trust_remote_code": trust_remote_code}
        llm = start_vllm(checkpoint, **how, **_handing_over(numbers, folder), **options)
        engine = _Engine(spec, llm, vllm.SamplingParams(temperature=0.0, max_tokens=1, detokenize=False))
        rows, words = RowFile(), WordsRead(wanted)
        for batch in in_chunks(prepare(engine, traces, settings, request), batch_size):
            open_ones = [entry for entry in batch if entry.left_out is None]
            for entry, states in zip(open_ones, engine.states(open_ones), strict=True):
                assert entry.encoding is not None
                rows.add(_at_positions(entry.encoding, states, wanted))
                words.add(entry.encoding)
                about.append(about_trace(entry.trace, entry.segmentation))
            left_out |= {entry.trace.trace_id: str(entry.left_out) for entry in batch if entry.left_out is not None}
            on_batch(len(batch))
    if not about:
        raise NothingMeasured("no trace whose states can be read", left_out)
    return StateArray(
        array=rows.array(),
        index=pd.DataFrame(about, dtype=object),
        positions=wanted,
        layers=numbers,
        components=("resid_post",),
        head="z",
        model=spec,
        left_out=left_out,
        words=words.at,
    )


class _Read(NamedTuple):
    """What vLLM wrote of one trace."""

    token_ids: list[int]
    states: np.ndarray
    """(token, layer, d_model), float32."""


class _Engine:
    """vLLM, set up to hand over states."""

    def __init__(self, spec: str, llm: Any, params: Any) -> None:
        self.name, self._llm, self._params = spec, llm, params
        self.tokenizer: Any = llm.get_tokenizer()
        # It writes a token behind what it reads.
        self._most = llm.model_config.max_model_len - 1

    def encode(
        self, trace: Trace, segmentation: Segmentation, *, max_length: int | None = None, **how: Any
    ) -> Encoding:
        """As :meth:`safekey_interp.models.model.Model.encode`."""
        encoding = encode(self.tokenizer, trace, segmentation, **how)
        check_length(encoding, max_length=max_length, max_positions=self._most)
        return encoding

    def states(self, entries: Sequence[Entry]) -> Iterator[np.ndarray]:
        """States of every token that is read of each entry."""
        asked = [_ids(entry) for entry in entries]
        if not asked:
            return
        outputs = self._llm.generate([{"prompt_token_ids": ids} for ids in asked], self._params, use_tqdm=False)
        for entry, ids, output in zip(entries, asked, outputs, strict=True):
            where = (output.kv_transfer_params or {}).get("hidden_states_path")
            if where is None:
                raise ModelError(f"model {self.name}: vLLM wrote no states of trace {entry.trace.trace_id}")
            read = _read(where)
            if read.token_ids[: len(ids)] != ids or len(read.states) < len(ids):
                raise ModelError(
                    f"model {self.name}: vLLM wrote states of {len(read.states)} tokens of trace "
                    f"{entry.trace.trace_id}, expected those of the {len(ids)} that it was given"
                )
            yield read.states


def _handing_over(layers: Sequence[int], folder: str) -> dict[str, Any]:
    """What makes vLLM write the states behind layers into a folder."""
    behind = {"eagle_aux_hidden_state_layer_ids": [layer + 1 for layer in layers]}
    return {
        "enable_chunked_prefill": False,
        "speculative_config": {
            "method": "extract_hidden_states",
            "num_speculative_tokens": 1,
            "draft_model_config": {"hf_config": behind},
        },
        "kv_transfer_config": {
            "kv_connector": _CONNECTOR,
            "kv_role": "kv_producer",
            "kv_connector_extra_config": {"shared_storage_path": folder},
        },
    }


def _read(where: str) -> _Read:
    """Read and remove a file of states; vLLM's own reader waits until it is whole."""
    connector: Any = import_module(_CONNECTOR_MODULE)
    found = connector.load_hidden_states(where)
    for file in (Path(where), Path(f"{where}.lock")):
        file.unlink(missing_ok=True)
    return _Read(found["token_ids"].tolist(), found["hidden_states"].float().numpy())


def _at_positions(encoding: Encoding, states: np.ndarray, positions: Sequence[str]) -> np.ndarray:
    """(position, layer, component, d_model): means over each position's tokens, NaN where there are none."""
    row = np.full((len(positions), states.shape[1], 1, states.shape[2]), np.nan, np.float32)
    for number, position in enumerate(positions):
        if len(tokens := encoding.positions(position)):
            row[number, :, 0] = states[list(tokens)].mean(0)
    return row


def _ids(entry: Entry) -> list[int]:
    assert entry.encoding is not None
    return entry.encoding.input_ids[: entry.encoding.end].tolist()


def _n_layers(location: str, spec: str, revision: str | None, trust_remote_code: bool) -> int:
    from transformers import AutoConfig

    try:
        config: Any = AutoConfig.from_pretrained(location, revision=revision, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise ModelError(f"model {spec}: its configuration cannot be read: {first_line(error)}") from error
    return int(config.get_text_config().num_hidden_layers)
