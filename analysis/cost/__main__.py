"""Correctness and cost of the package on the machine at hand: ``cost.json`` and a page.

    python -m analysis.cost --out D [--device cuda --dtype bfloat16 --model llama-8b] [--length 2048] [--minutes 8]
                                    [--only capture,session]

First each number is compared with the plainest way to it; then each way of the package runs by turns with what it is
compared with (:mod:`analysis.cost.timing`). Models are random weights of a named shape, made on the device, so that
nothing is downloaded; ``--model`` also takes what ``load`` does. An entry whose packages are missing, or that the time
has no place for, is left out with a reason; one that fails says so, and the rest goes on. A run that was stopped
goes on where it was. Exit status 1 where a check of correctness fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

_ROOT = Path(__file__).parents[2]
_LONGEST, _ALWAYS = 2.5, 20.0
"""How much longer than asked for all may take, where a machine is slow; seconds that an entry may take in any case."""


def main(words: Sequence[str] | None = None) -> int:
    """Measure what is missing in the folder, and write it."""
    from analysis.cost.stand_ins import install

    install()
    from safekey_interp.errors import SafekeyError

    try:
        return _measure(_options(words))
    except SafekeyError as error:
        _fail(str(error))


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    from analysis.cost.shapes import SHAPES

    parser = argparse.ArgumentParser(prog="python -m analysis.cost", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of cost.json and cost.html")
    parser.add_argument("--device", help="cuda, mps or cpu; what is there by default")
    parser.add_argument("--dtype", help="bfloat16, float16 or float32. Default: bfloat16 on cuda, else float32")
    parser.add_argument(
        "--model",
        help=f"{', '.join(SHAPES)} (random weights), or what load takes. Default: llama-8b on cuda, else smollm2-135m",
    )
    parser.add_argument("--length", type=int, default=2048, help="most tokens of a sequence. Default: 2048")
    parser.add_argument("--minutes", type=float, default=8, help="about how long it takes. Default: 8")
    parser.add_argument("--only", default="", help="entries, by name and with commas; correctness for the checks alone")
    return parser.parse_args(words)


def _measure(options: argparse.Namespace) -> int:
    from analysis.cost.bench import Bench, machine
    from analysis.cost.checks import CHECKS
    from analysis.cost.cost_page import write_page
    from analysis.cost.entries import ENTRIES
    from safekey_interp.runs.storage import write_aside

    setup = _setup(options)
    only = _chosen(options.only, [entry.name for entry in ENTRIES])
    begun = time.perf_counter()
    out: Path = options.out
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _fail(f"--out {out}: cannot be made: {error.strerror}")
    results = _known(out / "cost.json", {"setup": asdict(setup), "code": _code()})
    results["machine"] = machine(setup.device)
    bench = Bench(setup)

    def keep() -> None:
        text = json.dumps(results, indent=1, allow_nan=False)
        write_aside(out / "cost.json", lambda file: file.write_text(text + "\n", encoding="utf-8"))
        write_aside(out / "cost.html", partial(write_page, results))

    for name, check in CHECKS.items():
        if (not only or "correctness" in only) and name not in results["correctness"]:
            results["correctness"][name] = _checked(name, lambda check=check: list(check(bench)))
            keep()
    waiting = [entry for entry in ENTRIES if (not only or entry.name in only) and not _is_done(results, entry.name)]
    for number, entry in enumerate(waiting):
        spent, n_left = time.perf_counter() - begun, len(waiting) - number
        if spent > 60 * setup.minutes * _LONGEST + _ALWAYS:
            results["left_out"] |= {each.name: "no time is left; run the command again" for each in waiting[number:]}
            break
        share = max(0.0, 60 * setup.minutes - spent) / n_left
        most = max(_ALWAYS, share, (60 * setup.minutes * _LONGEST - spent) / min(4, n_left))
        _one(bench, entry, share, most, results)
        keep()
    keep()
    return _summary(results, out)


def _setup(options: argparse.Namespace) -> Any:
    import torch

    from analysis.cost.bench import Setup
    from safekey_interp.errors import InputError
    from safekey_interp.models.devices import device_for, dtype_for

    device = str(device_for(options.device).type)
    default = torch.bfloat16 if device == "cuda" else torch.float32
    dtype = str(dtype_for(options.dtype or default, torch.device(device))).removeprefix("torch.")
    if dtype == "auto":
        raise InputError("--dtype: got auto, expected float32, bfloat16 or float16")
    for name, least in (("length", 64), ("minutes", 0)):
        if not getattr(options, name) > least:
            raise InputError(f"--{name}: got {getattr(options, name)}, expected more than {least}")
    model = options.model or ("llama-8b" if device == "cuda" else "smollm2-135m")
    return Setup(model=model, device=device, dtype=dtype, length=options.length, minutes=options.minutes)


def _chosen(only: str, names: Sequence[str]) -> set[str]:
    from safekey_interp.errors import InputError

    chosen = {name for name in only.split(",") if name}
    unknown = sorted(chosen - {*names, "correctness"})
    if unknown:
        raise InputError(f"--only: got {unknown[0]!r}, expected some of correctness, {', '.join(names)}")
    return chosen


def _known(file: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """What was measured before under the same conditions."""
    from safekey_interp.errors import InputError, RunError

    empty = {"identity": identity, "machine": {}, "correctness": {}, "entries": [], "left_out": {}, "failed": {}}
    if not file.is_file():
        return empty
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        before = known["identity"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file}: cannot be read; delete it, or take another folder") from error
    if before != identity:
        what = next((name for name in identity if before.get(name) != identity[name]), "identity")
        raise InputError(f"--out: {file} has measurements of another {what}; take another folder")
    # What was left out or failed is tried again.
    return known | {"left_out": {}, "failed": {}}


def _is_done(results: dict[str, Any], name: str) -> bool:
    return any(entry["name"] == name for entry in results["entries"])


def _code() -> str:
    """A digest of what is measured and of what measures it."""
    digest = sha256()
    for folder in ("safekey_interp", "analysis/cost"):
        for file in sorted((_ROOT / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _checked(name: str, run: Callable[[], list[Any]]) -> list[dict[str, Any]]:
    start = time.perf_counter()
    try:
        checks = [check._asdict() | {"is_right": check.is_right} for check in run()]
    except Exception as error:  # a check that cannot be made has not shown that the number is right
        traceback.print_exc()
        note = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        checks = [{"name": name, "error": None, "tolerated": 0.0, "note": note, "is_right": False}]
    for check in checks:
        check["error"] = check["error"] if check["error"] is not None and isfinite(check["error"]) else None
        shown = check["note"] or f"{check['error']} (at most {check['tolerated']:.0e})"
        _say(f"{'right' if check['is_right'] else 'WRONG'}: {check['name']}: {shown}")
    _say(f"correctness, {name}: {time.perf_counter() - start:.0f} s")
    return checks


def _one(bench: Any, entry: Any, seconds: float, most: float, results: dict[str, Any]) -> None:
    from analysis.cost.limits import share_of_limit
    from analysis.cost.timing import TooLong, clock, interleaved

    start = time.perf_counter()
    try:
        ways = entry.ways(bench)
        rounds = interleaved(ways.ours, ways.baseline, seconds=seconds, most=most, meter=entry.meter)
    except (ImportError, TooLong) as error:
        missing = getattr(error, "name", None)
        results["left_out"][entry.name] = f"{missing} is not installed" if missing else str(error)
        _say(f"{entry.name}: left out: {results['left_out'][entry.name]}")
        return
    except Exception as error:
        traceback.print_exc()
        results["failed"][entry.name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}"
        _say(f"{entry.name}: FAILED: {results['failed'][entry.name]}")
        return
    is_time = entry.meter is clock
    measured = {name: value if isfinite(value) else None for name, value in rounds._asdict().items()}
    results["entries"].append(
        {"name": entry.name, "what": entry.what, "baseline": entry.baseline}
        | {"ratio": measured["ratio"], "low": measured["low"], "high": measured["high"]}
        | {"processor_ratio": measured["processor_ratio"], "rounds": measured["n"]}
        | {"unit": "s" if is_time else "bytes"}
        | {"value": measured["ours"], "baseline_value": measured["baseline"]}
        | {"device": results["machine"]["device"], "dtype": bench.setup.dtype, "model": bench.setup.model}
        | {"length": bench.length, "share_of_limit": share_of_limit(ways, rounds.ours, bench) if is_time else None}
    )
    _say(
        f"{entry.name}: {rounds.ratio:.3f} [{rounds.low:.3f}, {rounds.high:.3f}] x {entry.baseline}; "
        f"{rounds.n} rounds, {time.perf_counter() - start:.0f} s"
    )


def _summary(results: dict[str, Any], out: Path) -> int:
    from analysis.cost.cost_page import made_checks

    checks = made_checks(results)
    wrong = [check["name"] for check in checks if not check["is_right"]]
    print(f"{len(checks) - len(wrong)} of {len(checks)} checks right; {len(results['entries'])} entries measured")
    for what in ("left_out", "failed"):
        for name, why in results[what].items():
            print(f"{what.replace('_', ' ')}: {name}: {why}")
    print(out / "cost.html")
    if wrong:
        print(f"analysis.cost: wrong: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def _fail(message: str) -> NoReturn:
    print(f"analysis.cost: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    sys.exit(main())
