"""Report of a run: ``report.html``, one file, no network, under 8 MB."""

from __future__ import annotations

from pathlib import Path

from safekey_interp.errors import RunError
from safekey_interp.runs.run_folder import open_run
from safekey_interp.runs.storage import write_aside

__all__ = ["write_report"]


def write_report(run_dir: Path) -> Path:
    """Draw the page of a run folder; the page names what the folder lacks.

    Args:
        run_dir: a folder that ``safekey-interp probe``, ``train``, ``intervene``, ``compare`` or ``eval`` wrote.

    Returns:
        The page's path, ``run_dir/report.html``. It is complete or absent.

    Raises:
        RunError: no run in the folder, a table that cannot be read, or a folder that cannot be written.
    """
    from safekey_interp.reporting.pages import (
        benchmark_page,
        comparison_page,
        intervention_page,
        probe_page,
        training_page,
    )

    pages = {
        "training": training_page,
        "intervention": intervention_page,
        "comparison": comparison_page,
        "benchmarks": benchmark_page,
    }
    run = open_run(run_dir)
    file = run.path / "report.html"
    text = pages.get(run.manifest.get("kind", ""), probe_page).render(run)
    try:
        write_aside(file, lambda page: page.write_text(text, encoding="utf-8", newline="\n"))
    except OSError as error:
        why = f"{error.strerror or error}; free the place or choose another folder"
        raise RunError(f"{file}: cannot be written ({why})") from error
    return file
