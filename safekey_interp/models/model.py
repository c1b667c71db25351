"""Causal language models: loading one, and what a run records of it.

A :class:`Model` is a transformers model with its tokenizer and a name for the record. Nothing is attached here: hooks
belong to :mod:`safekey_interp.capture`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from safekey_interp.data.trace import Trace
from safekey_interp.errors import ModelError, TraceError, first_line
from safekey_interp.models.chat_template import Rendering
from safekey_interp.models.checkpoints import check_revision, merge_adapter, read_checkpoint, resolve
from safekey_interp.models.devices import device_for, dtype_for
from safekey_interp.models.encoding import Encoding, check_length, encode
from safekey_interp.models.layer_numbers import layer_numbers
from safekey_interp.models.tokenisation import check_offsets
from safekey_interp.segmentation.segmenter import Segmentation, segment

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


class Model:
    """A causal language model, its tokenizer, and what a run records of them."""

    def __init__(
        self, hf: nn.Module, tokenizer: Any, *, spec: str, revision: str | None = None, adapter: str | None = None
    ) -> None:
        self.hf: Any = hf
        """The transformers model, in evaluation mode."""
        self.tokenizer = tokenizer
        """Its tokenizer."""
        self.spec = spec
        """What it was loaded from."""
        self.revision = revision
        """The commit of a hub checkpoint; None elsewhere."""
        self.adapter = adapter
        """The PEFT adapter that was merged into it."""
        self._bridge: TransformerBridge | None = None

    @property
    def config(self) -> Any:
        """The configuration of the text decoder."""
        return self.hf.config.get_text_config(decoder=True)

    @property
    def n_layers(self) -> int:
        """Number of decoder layers."""
        return self.config.num_hidden_layers

    @property
    def n_heads(self) -> int:
        """Number of query heads of a layer."""
        return self.config.num_attention_heads

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.config.hidden_size

    @property
    def device(self) -> torch.device:
        """Where the token embeddings lie, and so the input belongs."""
        return self.hf.get_input_embeddings().weight.device

    @property
    def n_embeddings(self) -> int:
        """Number of token embeddings: ids at or above it crash the model."""
        embedding = self.hf.get_input_embeddings()
        # Sharded weights (ZeRO-3) have a shape of their own.
        return getattr(embedding, "num_embeddings", None) or embedding.weight.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return self.hf.dtype

    @property
    def max_positions(self) -> int | None:
        """Longest sequence that the configuration states; None when it states none."""
        return getattr(self.config, "max_position_embeddings", None)

    def encode(
        self,
        trace: Trace,
        segmentation: Segmentation | None = None,
        *,
        max_length: int | None = None,
        rendering: Rendering = "chat",
        reads: Iterable[str] = (),
    ) -> Encoding:
        """Token ids and token spans over exactly the text that the model would have seen.

        Args:
            trace: the trace.
            segmentation: where U and K lie; the ``rules`` finder's when None.
            max_length: largest number of tokens up to the end of K; the model's own limit when None.
            rendering: ``chat`` is what the model would have seen; ``released`` what the reference's attention script
                reads: the prompt and the first half of the response, without a chat template.
            reads: span expressions that the measurement needs; none for K and what comes before.

        Returns:
            The text, its tokens, and half-open token spans; a span that the trace lacks is None.

        Raises:
            InputError: an expression that cannot be parsed.
            TraceTooLong: what is read ends past ``max_length``.
            TraceError: a span that is read cannot be placed; the chat template refuses the trace, or one of its tokens
                has no embedding.
        """
        encoding = encode(self.tokenizer, trace, segmentation or segment(trace), rendering=rendering, reads=reads)
        check_length(encoding, max_length=max_length, max_positions=self.max_positions)
        largest = int(encoding.input_ids[: encoding.end].max())
        if largest >= self.n_embeddings:
            raise TraceError(
                trace.trace_id,
                f"its token {self.tokenizer.convert_ids_to_tokens(largest)!r} (id {largest}) has no embedding in the "
                f"model, which has {self.n_embeddings}; is the tokenizer another model's?",
            )
        return encoding

    def layer_numbers(self, layers: Sequence[int] | None) -> tuple[int, ...] | None:
        """The layers asked for, negative ones counted from the last.

        Returns:
            Their numbers from 0, ascending, each once; None for None, which stands for all.

        Raises:
            InputError: a layer that the model does not have.
        """
        return None if layers is None else layer_numbers(layers, self.n_layers)

    def bridge(self) -> TransformerBridge:
        """TransformerLens's view of this model; the model keeps its own attention function and stays as fast as it was.

        Returns:
            A TransformerBridge on a second module tree that shares this model's parameters; made once.

        Raises:
            ModelError: TransformerLens has no adapter for the architecture.
        """
        if self._bridge is None:
            from safekey_interp.models.transformer_lens_bridge import shared_bridge

            self._bridge = shared_bridge(self.hf, self.tokenizer, spec=self.spec, dtype=self.dtype, device=self.device)
        return self._bridge

    def fingerprint(self) -> str:
        """SHA-256 over every parameter's name, type, shape and bytes."""

        def digest(item: tuple[str, torch.Tensor]) -> str:
            name, tensor = item
            raw = tensor.detach().to("cpu").contiguous().view(-1).view(torch.uint8).numpy()
            head = f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode()
            return hashlib.sha256(head + hashlib.sha256(raw.data).digest()).hexdigest()

        with ThreadPoolExecutor() as pool:
            return hashlib.sha256("".join(pool.map(digest, sorted(self.hf.named_parameters()))).encode()).hexdigest()

    def record(self) -> Mapping[str, Any]:
        """What a run writes down about the model."""
        return {
            "spec": self.spec,
            "name": self.name,
            "revision": self.revision,
            "adapter": self.adapter,
            "architecture": type(self.hf).__name__,
            "n_layers": self.n_layers,
            "n_heads": self.n_heads,
            "d_model": self.d_model,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
            "attn": self.hf.config._attn_implementation,
            "weights_sha256": self.fingerprint(),
        }

    @property
    def name(self) -> str:
        """A short name: the last part of a path or hub id."""
        return self.spec.rstrip("/").rsplit("/", 1)[-1]

    def __repr__(self) -> str:
        return f"Model({self.spec!r}, {type(self.hf).__name__}, {self.n_layers} layers, {self.n_heads} heads)"


def load(
    spec: str,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    adapter: str | None = None,
    attn: str | None = None,
    **from_pretrained: Any,
) -> Model:
    """Load a causal model with its tokenizer.

    Args:
        spec: a hub id, a local folder, a ``.gguf`` file, or a name that needs no network: ``organism``,
            ``organism:base``, ``smollm2``, ``smollm2:sft``, ``smollm2:safekey``.
        device: CUDA, MPS or CPU, by what is there, when None; ``auto`` spreads layers over several GPUs.
        dtype: the checkpoint's on an accelerator and float32 on CPU when None.
        revision: branch, tag or commit of a hub checkpoint.
        adapter: folder or hub id of a PEFT adapter, merged into the weights (extra ``[train]``).
        attn: attention function (``sdpa``, ``eager``, …); transformers' own choice when None.
        **from_pretrained: handed to ``AutoModelForCausalLM.from_pretrained``. ``use_safetensors`` is True and
            ``trust_remote_code`` False unless they say otherwise.

    Returns:
        The model on its device, set to evaluate.

    Raises:
        ModelError: no such model, no weights, no tokenizer, no causal language model, or a revision of one that is not
            the hub's.
    """
    check_revision(str(spec), revision)
    checkpoint = resolve(str(spec))
    spread = str(device) == "auto" or "device_map" in from_pretrained
    target = None if spread else device_for(device)
    options: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False} | from_pretrained
    options["dtype"] = dtype_for(dtype, target)
    if revision is not None:
        options["revision"] = revision
    if attn is not None:
        options["attn_implementation"] = attn
    if str(device) == "auto":
        options.setdefault("device_map", "auto")
    hf, tokenizer = read_checkpoint(checkpoint, options)
    if target is not None:
        try:
            hf = hf.to(target)
        except Exception as error:
            raise ModelError(f"model {checkpoint.spec}: cannot be moved to {target}: {first_line(error)}") from error
    for merged in (checkpoint.adapter, adapter):
        if merged is not None:
            hf = merge_adapter(hf, merged)
    commit = getattr(hf.config, "_commit_hash", None)
    return from_hf(hf, tokenizer, spec=checkpoint.spec, revision=commit or revision, adapter=adapter)


def from_hf(
    model: nn.Module,
    tokenizer: Any,
    *,
    spec: str | None = None,
    revision: str | None = None,
    adapter: str | None = None,
) -> Model:
    """A :class:`Model` from a transformers model that is already in memory, quantised ones and PEFT's included.

    Args:
        model: a causal language model of transformers; of a PeftModel, the model inside with its adapter layers.
        tokenizer: its tokenizer, one that reports offsets.
        spec: a name for the record; the configuration's ``name_or_path`` when None.
        revision: the commit that it was loaded from, for the record.
        adapter: the PEFT adapter that was merged into it, for the record.

    Returns:
        The model, set to evaluate; the module is the same object, no copy.

    Raises:
        ModelError: not a transformers model, or the tokenizer reports no offsets.
    """
    whole: Any = model
    hf: Any = whole.get_base_model() if hasattr(whole, "get_base_model") else whole
    if not hasattr(hf, "config") or not hasattr(hf, "get_input_embeddings"):
        raise ModelError(f"model: got {type(model).__name__}, expected a transformers model")
    check_offsets(tokenizer)
    hf.eval()
    name = spec or getattr(hf.config, "name_or_path", "") or type(hf).__name__
    return Model(hf, tokenizer, spec=name, revision=revision, adapter=adapter)
