"""Page of a probe run: where the model decides, on what, what its states know, and what chance would give."""

from __future__ import annotations

from typing import Any

from safekey_interp.capture.measured_spans import spans_in
from safekey_interp.data.class_labels import HARM, ClassPair
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.findings.phrases import class_pair_of
from safekey_interp.reporting.findings.summary_lines import streamed
from safekey_interp.reporting.labels import names_in
from safekey_interp.reporting.pages import page_text, token_view
from safekey_interp.reporting.pages.page_layout import Page
from safekey_interp.reporting.pages.page_strips import PROBE
from safekey_interp.reporting.pages.rendering import data, island
from safekey_interp.reporting.pages.rendering import render as rendered
from safekey_interp.reporting.probe_rows import LOGISTIC, probe_words
from safekey_interp.runs.run_folder import Run

# The response and the free-form fields stay on disk: the page quotes prompt, understanding and key sentence.
_TRACE_COLUMNS = (
    *("trace_id", "prompt", "label", "source", "group", "condition", "family", "region", "understanding"),
    *("key_sentence", "aha", "hint", "confidence", "reason", "n_tokens", "n_straddling", "status", "left_out"),
)
_COORDINATES = ("trace_id", "position", "layer", "site", "label", "lda", "pc1")
_MAX_POINTS = 1000
"""Traces in the scatter: more points show a reader no more."""
MAX_BYTES = 7_900_000
"""The page stays below this; attention of the examples gets what the rest leaves."""


class ProbePage(Page):
    """A page with a token view."""

    strip = PROBE

    def __init__(self, run: Run) -> None:
        self.names = names_in(run.manifest)
        """What spans and positions are called."""
        super().__init__("probe" if self.names.is_built_in else "spans", run, run.manifest)
        self.spans = spans_in(run.manifest)
        """What was measured."""
        table: Table | None = run.separability
        if table is not None and not (self.names.is_built_in and (table["label_by"] == "aha").any()):
            pair = class_pair_of(table)
            self.classes = pair if pair == HARM else ClassPair(*map(data, pair))
        fitted = [each for each in (table, run.transfer) if each is not None]
        self.probe = probe_words(fitted[0]) if fitted else LOGISTIC
        self.traces: Table | None = run.table("traces", columns=_TRACE_COLUMNS)
        self.coordinates: Table | None = run.table("coordinates", columns=_COORDINATES, max_traces=_MAX_POINTS)
        self.show(token_view.collect(run, self.traces))

    def show(self, view: token_view.View) -> None:
        """Take the token view, and its notes in place of those of the one before."""
        old = getattr(self, "view", token_view.View()).notes
        self.view, self.notes = view, [*view.notes, *self.notes[len(old) :]]


drawn = ProbePage.drawn


def render(run: Run) -> str:
    """The whole page as text."""
    page = drawn(run)
    # The maps take what the rest leaves: the page without them is measured, then the maps are packed to fit.
    used = len(_text(page).encode("utf-8", "replace"))
    page.show(token_view.with_maps(page.view, run, MAX_BYTES - used - 20_000))
    page.draw("left-out")
    return _text(page)


def _text(page: ProbePage) -> str:
    model = page_text.model_of(page.manifest)
    about: dict[str, Any] = {"model": model, "traces": _traces(page)}
    about["date"], about["spans"] = page_text.date_of(page.manifest.get("created")), page.spans
    name, stream = (page.manifest.get("model") or {}).get("name") or "a model", streamed(page.manifest.get("stream"))
    return page.text(
        title=rendered(f"{page.kind}_page", "title", name=name).unescape(),
        header=rendered(f"{page.kind}_page", "header", **about),
        notices=page_text.notices_of(page.manifest, model["is_toy"], [*filter(None, [stream])]),
        islands=[island("examples-data", page.view.embedded())],
    )


def _traces(page: ProbePage) -> dict[str, str]:
    traces, count = page.traces, "unknown"
    if traces is not None:
        count = f"{int((traces['status'] == 'measured').sum()):,} measured of {len(traces):,}"
    return {"count": count, "sources": page_text.sources_of(page.manifest)}
