"""Python and a command that repeat a branch outside of its session."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from safekey_interp.data.trace import Trace
from safekey_interp.exploration.branch_files import direction_file
from safekey_interp.exploration.branch_record import Branch, BranchCode
from safekey_interp.generation.generation_edits import GenerationEdit, HideSpan, Steer
from safekey_interp.models.model import Model

Before = Callable[[str, int], str]
"""Id of a branch and a position to the text of its response before that token."""


def code_of(
    branch: Branch, branches: Mapping[str, Branch], models: Sequence[Model], folder: Path | None, before: Before
) -> BranchCode:
    """What repeats a branch: its parents are run, then it is forked from them.

    Args:
        branch: the branch.
        branches: all of its session, by id.
        models: the session's.
        folder: the session's run folder; None for none.
        before: the text of a branch before one of its tokens.
    """
    loaded = ", ".join(f"ski.load({model.spec!r})" for model in models)
    lines = ["import safekey_interp as ski", "", f"session = ski.Session([{loaded}])"]
    for each in _needed(branch, branches):
        lines += _made(each, branches, folder, before)
        lines.append(f"list(session.run(branch_{each.branch_id}))")
    lines.append(f"print(session.transcript(branch_{branch.branch_id}).response)")
    command = "safekey-interp explore"
    if folder is not None:
        command += f" --run {shlex.quote(str(folder))}"
    else:
        command += "".join(f" --model {shlex.quote(model.spec)}" for model in models)
    return BranchCode("\n".join(lines) + "\n", command)


def _needed(branch: Branch, branches: Mapping[str, Branch]) -> list[Branch]:
    """A branch with all that it came from and has states of, in the order in which they were made."""
    found: set[str] = set()
    left = [branch]
    while left:
        each = left.pop()
        found.add(each.branch_id)
        sources = (each.parent, None if each.patch is None else each.patch.source)
        left += [branches[name] for name in sources if isinstance(name, str) and name in branches]
    return [each for name, each in branches.items() if name in found]


def _made(branch: Branch, branches: Mapping[str, Branch], folder: Path | None, before: Before) -> list[str]:
    name, sampling = f"branch_{branch.branch_id}", branch.sampling
    if branch.parent is None or branch.parent not in branches:
        options = [
            _trace(branch.trace),
            *([f"prefill={branch.prefill!r}"] if branch.prefill else []),
            *([f"model={branch.model}"] if branch.model else []),
            f"seed={sampling.seed}",
            f"temperature={sampling.temperature}",
            *([f"top_p={sampling.top_p}"] if sampling.top_p != 1 else []),
            f"max_new_tokens={sampling.max_new_tokens}",
        ]
        return [f"{name} = session.start(\n    " + ",\n    ".join(options) + ",\n)"]
    parent = branches[branch.parent]
    edits = [_edit(edit, folder) for edit in branch.edits[len(parent.edits) :]]
    text = branch.prefill[len(before(parent.branch_id, branch.at or 0)) :]
    options = [
        f"branch_{parent.branch_id}",
        f"at={branch.at}",
        *([f"text={text!r}"] if text else []),
        *([f"edits=[{', '.join(edits)}]"] if edits else []),
        *([f"patch={_patch(branch)}"] if branch.patch not in (None, parent.patch) else []),
        "control=False",
    ]
    return [f"{name} = session.fork(\n    " + ",\n    ".join(options) + ",\n)"]


def _patch(branch: Branch) -> str:
    patch = branch.patch
    assert patch is not None
    layers = None if patch.layers is None else list(patch.layers)
    source = f"branch_{patch.source}.branch_id" if isinstance(patch.source, str) else _trace(patch.source)
    return f"ski.StatePatch({source}, positions={patch.positions!r}, layers={layers})"


def _trace(trace: Trace) -> str:
    options = [f"{name}={getattr(trace, name)!r}" for name in ("trace_id", "prompt", "response")]
    for name in ("messages", "steps"):
        turns = [f"ski.Message(role={turn.role!r}, content={turn.content!r})" for turn in getattr(trace, name)]
        options += [f"{name}=[{', '.join(turns)}]"] if turns else []
    return f"ski.Trace({', '.join(options)})"


def _edit(edit: GenerationEdit, folder: Path | None) -> str:
    options = [] if edit.layers is None else [f"layers={list(edit.layers)}"]
    if isinstance(edit, HideSpan):
        options += [] if edit.heads is None else [f"heads={list(edit.heads)}"]
        options += [] if edit.from_ is None else [f"from_={edit.from_!r}"]
        return f"ski.HideSpan({', '.join([repr(edit.span), *options])})"
    options += [] if edit.positions is None else [f"positions={list(edit.positions)}"]
    file = direction_file(edit.direction, Path("directions") if folder is None else folder / "directions")
    if isinstance(edit, Steer):
        options.append(f"scale={edit.scale}")
    return f"ski.{type(edit).__name__}({', '.join([f'ski.Direction.load({str(file)!r})', *options])})"
