"""Mechanistic interpretability of safety in reasoning models.

Public names load on first use, so that importing the package costs neither torch nor transformer_lens.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from safekey_interp.version import __version__

_HOMES = {
    "trace": ("CharSpan", "Message", "TokenSpan", "Trace"),
    "errors": ("InputError", "ModelError", "RunError", "SafekeyError", "TraceError", "TraceTooLong"),
    "datasets": ("read_traces",),
    "suites": ("suite_files",),
    "segmentation": ("Segmentation", "register_finder", "segment", "segment_all"),
    "showing": ("show",),
    "models": ("Model", "from_hf", "load"),
    "organism": ("example",),
    "generation": ("Sampling", "generate"),
    "generation.kl": ("measure_kl",),
    "generation.running": ("write_responses",),
    "encoding": ("Encoding",),
    "attention": ("measure_attention", "paper_attention", "token_attention"),
    "attention_summary": ("summarise_attention",),
    "key_sentence_bank": ("KeySentences",),
    "key_sentences": ("measure_aha",),
    "intervening.running": ("run_intervention",),
    "interventions.attention_knockout": ("knockout", "summarise_knockout"),
    "interventions.attribution": ("compare_attribution",),
    "interventions.direct_effects": ("rank_heads", "summarise_heads"),
    "interventions.directions": (
        *("compare_directions", "direction_components", "directions_of_head", "fit_directions"),
    ),
    "interventions.held_out": ("steer_held_out",),
    "interventions.lens": ("logit_lens", "summarise_lens"),
    "interventions.patching": ("patch", "summarise_patching"),
    "interventions.steering": ("steer", "summarise_steering"),
    "interventions.suppression": ("summarise_suppression", "suppress"),
    "interventions.receivers": ("find_receivers", "summarise_receivers"),
    "judge": ("judge_refusal",),
    "separability": ("measure_separability",),
    "transfer": ("measure_transfer",),
    "sentence_starts": ("turning_points",),
    "trajectory": ("measure_trajectory", "summarise_trajectory"),
    "monitor": ("calibrate", "watch"),
    "probes": ("Direction", "Probe"),
    "probing": ("run_probe",),
    "comparing.running": ("run_comparison",),
    "evaluating.calls": ("BenchmarkSettings",),
    "evaluating.running": ("run_benchmarks",),
    "training.config": ("TrainingConfig",),
    "training.running": ("train",),
    "runs": ("Run", "open_run"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME_OF]  # noqa: PLE0604 (names come from the table above)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from safekey_interp.attention import measure_attention as measure_attention
    from safekey_interp.attention import paper_attention as paper_attention
    from safekey_interp.attention import token_attention as token_attention
    from safekey_interp.attention_summary import summarise_attention as summarise_attention
    from safekey_interp.comparing.running import run_comparison as run_comparison
    from safekey_interp.datasets import read_traces as read_traces
    from safekey_interp.encoding import Encoding as Encoding
    from safekey_interp.errors import InputError as InputError
    from safekey_interp.errors import ModelError as ModelError
    from safekey_interp.errors import RunError as RunError
    from safekey_interp.errors import SafekeyError as SafekeyError
    from safekey_interp.errors import TraceError as TraceError
    from safekey_interp.errors import TraceTooLong as TraceTooLong
    from safekey_interp.evaluating.calls import BenchmarkSettings as BenchmarkSettings
    from safekey_interp.evaluating.running import run_benchmarks as run_benchmarks
    from safekey_interp.generation import Sampling as Sampling
    from safekey_interp.generation import generate as generate
    from safekey_interp.generation.kl import measure_kl as measure_kl
    from safekey_interp.generation.running import write_responses as write_responses
    from safekey_interp.intervening.running import run_intervention as run_intervention
    from safekey_interp.interventions.attention_knockout import knockout as knockout
    from safekey_interp.interventions.attention_knockout import summarise_knockout as summarise_knockout
    from safekey_interp.interventions.attribution import compare_attribution as compare_attribution
    from safekey_interp.interventions.direct_effects import rank_heads as rank_heads
    from safekey_interp.interventions.direct_effects import summarise_heads as summarise_heads
    from safekey_interp.interventions.directions import compare_directions as compare_directions
    from safekey_interp.interventions.directions import direction_components as direction_components
    from safekey_interp.interventions.directions import directions_of_head as directions_of_head
    from safekey_interp.interventions.directions import fit_directions as fit_directions
    from safekey_interp.interventions.held_out import steer_held_out as steer_held_out
    from safekey_interp.interventions.lens import logit_lens as logit_lens
    from safekey_interp.interventions.lens import summarise_lens as summarise_lens
    from safekey_interp.interventions.patching import patch as patch
    from safekey_interp.interventions.patching import summarise_patching as summarise_patching
    from safekey_interp.interventions.receivers import find_receivers as find_receivers
    from safekey_interp.interventions.receivers import summarise_receivers as summarise_receivers
    from safekey_interp.interventions.steering import steer as steer
    from safekey_interp.interventions.steering import summarise_steering as summarise_steering
    from safekey_interp.interventions.suppression import summarise_suppression as summarise_suppression
    from safekey_interp.interventions.suppression import suppress as suppress
    from safekey_interp.judge import judge_refusal as judge_refusal
    from safekey_interp.key_sentence_bank import KeySentences as KeySentences
    from safekey_interp.key_sentences import measure_aha as measure_aha
    from safekey_interp.models import Model as Model
    from safekey_interp.models import from_hf as from_hf
    from safekey_interp.models import load as load
    from safekey_interp.monitor import calibrate as calibrate
    from safekey_interp.monitor import watch as watch
    from safekey_interp.organism import example as example
    from safekey_interp.probes import Direction as Direction
    from safekey_interp.probes import Probe as Probe
    from safekey_interp.probing import run_probe as run_probe
    from safekey_interp.runs import Run as Run
    from safekey_interp.runs import open_run as open_run
    from safekey_interp.segmentation import Segmentation as Segmentation
    from safekey_interp.segmentation import register_finder as register_finder
    from safekey_interp.segmentation import segment as segment
    from safekey_interp.segmentation import segment_all as segment_all
    from safekey_interp.sentence_starts import turning_points as turning_points
    from safekey_interp.separability import measure_separability as measure_separability
    from safekey_interp.showing import show as show
    from safekey_interp.suites import suite_files as suite_files
    from safekey_interp.trace import CharSpan as CharSpan
    from safekey_interp.trace import Message as Message
    from safekey_interp.trace import TokenSpan as TokenSpan
    from safekey_interp.trace import Trace as Trace
    from safekey_interp.training.config import TrainingConfig as TrainingConfig
    from safekey_interp.training.running import train as train
    from safekey_interp.trajectory import measure_trajectory as measure_trajectory
    from safekey_interp.trajectory import summarise_trajectory as summarise_trajectory
    from safekey_interp.transfer import measure_transfer as measure_transfer


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'safekey_interp' has no attribute {name!r}")
    value = getattr(import_module(f"safekey_interp.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
