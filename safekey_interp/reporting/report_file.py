"""How does a run become a page that anybody can open? ``report.html``: one file, no network, under 8 MB."""

from __future__ import annotations

import os
from pathlib import Path

from safekey_interp.errors import RunError

__all__ = ["write_report"]


def write_report(run_dir: Path) -> Path:
    """Draws the page of a run folder; what the folder lacks is said on the page.

    Args:
        run_dir: a folder that ``safekey-interp probe``, ``train``, ``intervene``, ``compare`` or ``eval`` wrote.

    Returns:
        The page's path, ``run_dir/report.html``. It is complete or absent: written under another name, then renamed.

    Raises:
        RunError: no run.json in the folder, a table that cannot be read, or a folder that cannot be written.
    """
    from safekey_interp.reporting.pages import benchmark_page as of_benchmarks
    from safekey_interp.reporting.pages import comparison_page as of_comparison
    from safekey_interp.reporting.pages import intervention_page as of_intervention
    from safekey_interp.reporting.pages import probe_page as of_probe
    from safekey_interp.reporting.pages import training_page as of_training
    from safekey_interp.reporting.pages.page_tables import Tables

    page, tables = Path(run_dir) / "report.html", Tables(Path(run_dir))
    kinds = {
        "training": of_training,
        "intervention": of_intervention,
        "comparison": of_comparison,
        "benchmarks": of_benchmarks,
    }
    text = kinds.get(tables.manifest.get("kind", ""), of_probe).render(tables)
    draft = page.with_name(f".report.html.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8", newline="\n")
        draft.replace(page)
    except OSError as error:
        raise RunError(
            f"{page}: cannot be written ({error.strerror}); free the place or choose another folder"
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return page
