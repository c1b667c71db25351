"""Option ``--smallest-effect``: other smallest effects of interest, by which a run's findings are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from safekey_interp.errors import InputError

if TYPE_CHECKING:
    from safekey_interp.runs.run_folder import Run


def _by_kind(given: list[str]) -> dict[str, float]:
    from safekey_interp.reporting.findings.effect_size import checked_smallest

    smallest: dict[str, float] = {}
    for word in given:
        kind, _, number = word.partition("=")
        try:
            smallest[kind.strip()] = float(number)
        except ValueError:
            raise InputError(f"--smallest-effect: got {word!r}, expected KIND=NUMBER, such as share=0.1") from None
    return checked_smallest(smallest, "--smallest-effect")


def _check(given: list[str] | None) -> list[str] | None:
    """Refuse what cannot be read before a run works for hours."""
    if given:
        _by_kind(given)
    return given


SmallestEffect = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KIND=NUMBER",
        callback=_check,
        help="Smallest effect of interest of share, auroc, lift, nats or logits, such as share=0.1; may be given "
        "several times. Smaller ones are called too small to matter. Default: 0.05 of shares and AUROC, else 0.1.",
    ),
]


def retold(run: Run, given: list[str] | None) -> Run:
    """A run told with the smallest effects of interest that were typed; as it is where none were."""
    if not given:
        return run
    from safekey_interp.reporting.retelling import retell

    return retell(run.path, _by_kind(given))
