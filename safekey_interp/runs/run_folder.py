"""What lies in a run folder?

``run.json`` says what the run was, tables are Parquet, and what could not be measured is absent. Written by
:mod:`safekey_interp.runs.run_writer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safekey_interp.display import escaped, facts_html, framed
from safekey_interp.errors import RunError
from safekey_interp.runs.storage import read_json

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "run.json"
TABLES_OF_PROBES = (
    "traces",
    "attention",
    "attention_by_layer",
    "attention_by_head",
    "separability",
    "coordinates",
    "transfer",
)
"""What `probe` leaves."""
TABLES = (
    *TABLES_OF_PROBES,
    "steps",
    "held_out",
    "gradient_norms",
    "aha",
    "effects",
    "summary",
    "outcomes",
    "comparison",
    "benchmarks",
)
"""The Parquet tables of a run; one that could not be measured is absent, as are those of another kind of run."""


class Run:
    """A run folder, read on demand."""

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path = path
        """The folder."""
        self.manifest = manifest
        """What the run was: model, data, settings, versions, seed, plan, timings."""

    def table(self, name: str) -> pd.DataFrame | None:
        """One of the run's tables, read anew.

        ``attention`` may hold tens of millions of rows; ``attention_by_layer`` and ``attention_by_head`` sum it up.

        Args:
            name: one of :data:`TABLES`.

        Returns:
            The table; None when the run does not have it.
        """
        import pandas as pd

        file = self.path / f"{name}.parquet"
        return pd.read_parquet(file) if file.is_file() else None

    @cached_property
    def traces(self) -> pd.DataFrame | None:
        """One row a trace: spans, aha, reasons, what was left out."""
        return self.table("traces")

    @cached_property
    def attention(self) -> pd.DataFrame | None:
        """One row per trace, layer, head and pair of spans."""
        return self.table("attention")

    @cached_property
    def attention_by_layer(self) -> pd.DataFrame | None:
        """Means over traces and heads with intervals over groups."""
        return self.table("attention_by_layer")

    @cached_property
    def attention_by_head(self) -> pd.DataFrame | None:
        """Means over traces."""
        return self.table("attention_by_head")

    @cached_property
    def separability(self) -> pd.DataFrame | None:
        """One row per position, layer and method."""
        return self.table("separability")

    @cached_property
    def transfer(self) -> pd.DataFrame | None:
        """One row per position, layer, method and pair of conditions: fitted on one, tested on the other."""
        return self.table("transfer")

    @cached_property
    def steps(self) -> pd.DataFrame | None:
        """Of a training run: one row per logged step, the terms of its loss."""
        return self.table("steps")

    @cached_property
    def held_out(self) -> pd.DataFrame | None:
        """Of a training run: the terms of the loss on prompts that no step saw, each time they were measured."""
        return self.table("held_out")

    @cached_property
    def aha(self) -> pd.DataFrame | None:
        """Of a training run: how likely safe key sentences and go-aheads are after U, by look and label."""
        return self.table("aha")

    @cached_property
    def effects(self) -> pd.DataFrame | None:
        """Of an intervention: the tidy table of its function, its control in it."""
        return self.table("effects")

    @cached_property
    def summary(self) -> pd.DataFrame | None:
        """Of an intervention: means over traces with intervals, beside the control's."""
        return self.table("summary")

    @cached_property
    def outcomes(self) -> pd.DataFrame | None:
        """Of a comparison: what each model did with each prompt."""
        return self.table("outcomes")

    @cached_property
    def comparison(self) -> pd.DataFrame | None:
        """Of a comparison: one row per measure and model or pair of models."""
        return self.table("comparison")

    @cached_property
    def benchmarks(self) -> pd.DataFrame | None:
        """Of ``eval``: one row per number of a harness; of a comparison, those of its folder ``benchmarks``."""
        own = self.table("benchmarks")
        return own if own is not None else self.table("benchmarks/benchmarks")

    @cached_property
    def coordinates(self) -> pd.DataFrame | None:
        """LDA and PCA coordinates of each trace."""
        return self.table("coordinates")

    @cached_property
    def examples(self) -> list[dict[str, Any]]:
        """Traces whose attention on every token was kept, with the name of their map."""
        return read_json(self.path / "examples.json") or []

    @cached_property
    def example_weights(self) -> Mapping[str, Any]:
        """Per map, (layer, head, token) float16."""
        from safetensors.numpy import load_file

        file = self.path / "examples.safetensors"
        return load_file(file) if file.is_file() else {}

    @cached_property
    def findings(self) -> dict[str, Any]:
        """What was found, in words, with n, interval and control."""
        return read_json(self.path / "findings.json") or {}

    @property
    def is_complete(self) -> bool:
        """Whether the run came to its end."""
        return self.manifest.get("status") == "complete"

    def _repr_html_(self) -> str:
        made = self.manifest.get("intervention") or self.manifest.get("kind") or "probe"
        models = self.manifest.get("models") or [self.manifest.get("model") or {}]
        data = self.manifest.get("data") or {}
        sources = ", ".join(Path(str(source)).name for source in data.get("sources") or ())
        page = self.path / "report.html"
        rows = [
            ("run", f"{made}, {self.manifest.get('status')}"),
            ("model", ", ".join(str(model.get("name") or model.get("spec")) for model in models)),
            ("data", (f"{data.get('n_read', 0):,} traces" + f" from {sources}" * bool(sources)) * bool(data)),
            ("found", self.findings.get("headline") or ""),
            ("tables", ", ".join(name for name in TABLES if (self.path / f"{name}.parquet").is_file())),
            ("folder", str(self.path)),
            ("page", f"open {page} in a browser" if page.is_file() else f"safekey-interp report {self.path} draws it"),
        ]
        return framed(facts_html((name, escaped(text)) for name, text in rows if text))

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.manifest.get('status')})"


def open_run(path: str | Path) -> Run:
    """Open a run folder.

    Args:
        path: the folder.

    Returns:
        The run; its tables are read when they are asked for.

    Raises:
        RunError: no such folder, or not a run folder that a command of safekey-interp wrote.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise RunError(f"run {folder}: no such folder")
    manifest = manifest_in(folder)
    if manifest is None:
        raise RunError(
            f"run {folder}: holds no {MANIFEST} of this package, expected a run folder that a command of "
            "safekey-interp wrote"
        )
    return Run(folder, manifest)


def manifest_in(folder: Path) -> dict[str, Any] | None:
    """What ``run.json`` of a folder says; None when there is none of this package."""
    manifest = read_json(folder / MANIFEST)
    return manifest if isinstance(manifest, dict) and "safekey_interp" in manifest else None
