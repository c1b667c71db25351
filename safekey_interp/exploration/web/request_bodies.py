"""Bodies of requests to a session's server: what may be asked, checked before the session sees it."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safekey_interp.data.trace import Message, replace_surrogates
from safekey_interp.errors import InputError
from safekey_interp.exploration.branch_record import StatePatch, SwapKind
from safekey_interp.exploration.exploration_session import Session
from safekey_interp.generation.generation_edits import Ablate, GenerationEdit, HideSpan, Steer
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.probes import Probe

MOST_NEW_TOKENS = 32_768
"""Largest number of new tokens that may be asked for."""
Text = Annotated[str, Field(max_length=400_000)]
Name = Annotated[str, Field(max_length=200)]
Layers = Annotated[list[int], Field(max_length=1000)] | None


class Body(BaseModel):
    """A JSON object with known names alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)


B = TypeVar("B", bound=Body)


class Turn(Body):
    """One earlier turn."""

    role: Literal["system", "user", "assistant"]
    content: Text


class StartBody(Body):
    """A new prompt."""

    prompt: Text
    turns: Annotated[list[Turn], Field(max_length=200)] = []
    system: Text | None = None
    models: Annotated[list[int], Field(min_length=1, max_length=8)] = [0]
    """Numbers of the models that answer it, one branch each."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.0
    max_new_tokens: Annotated[int, Field(ge=1, le=MOST_NEW_TOKENS)] = 512
    run: bool = True
    """Whether to write them at once."""

    def asked(self) -> dict[str, Any]:
        """Keywords of :meth:`Session.start`, but for the model."""
        turns = [Message(role=turn.role, content=turn.content) for turn in self.turns]
        names = {"prompt", "system", "seed", "temperature", "max_new_tokens"}
        return {name: value for name, value in self if name in names} | {"turns": turns}


class HideBody(Body):
    """A span hidden from another."""

    kind: Literal["hide"]
    span: Name
    from_: Name | None = None
    layers: Layers = None
    heads: Layers = None

    def edit(self, _: Session) -> GenerationEdit:
        """As the session takes it."""
        return HideSpan(self.span, from_=self.from_, layers=self.layers, heads=self.heads)


class DirectionBody(Body):
    """A reader's direction, added or taken out."""

    kind: Literal["steer", "ablate"]
    reader: Name
    layers: Layers = None
    positions: Annotated[list[Name], Field(max_length=20)] | None = None
    scale: float = 1.0

    def edit(self, session: Session) -> GenerationEdit:
        """As the session takes it."""
        direction = _direction(session, self.reader)
        if self.kind == "ablate":
            return Ablate(direction, positions=self.positions, layers=self.layers)
        return Steer(direction, positions=self.positions, layers=self.layers, scale=self.scale)


class PatchBody(Body):
    """States of another branch."""

    source: Name
    positions: Name = "understanding"
    layers: Layers = None

    def patch(self) -> StatePatch:
        """As the session takes it."""
        return StatePatch(self.source, positions=self.positions, layers=self.layers)


class ForkBody(Body):
    """A branch that goes on with something changed."""

    branch: Name
    at: Annotated[int, Field(ge=0)] | None = None
    text: Text | None = None
    edits: Annotated[list[Annotated[HideBody | DirectionBody, Field(discriminator="kind")]], Field(max_length=20)] = []
    swap: SwapKind | None = None
    patch: PatchBody | None = None
    control: bool | Annotated[int, Field(ge=0, le=50)] = True
    run: bool = True

    def asked(self, session: Session) -> dict[str, Any]:
        """Keywords of :meth:`Session.fork`."""
        return {
            "at": self.at,
            "text": self.text,
            "edits": [edit.edit(session) for edit in self.edits],
            "swap": self.swap,
            "patch": None if self.patch is None else self.patch.patch(),
            "control": self.control,
        }


class BranchBody(Body):
    """One branch."""

    branch: Name


class RenameBody(BranchBody):
    """What a branch is called from now on."""

    name: Annotated[str, Field(min_length=1, max_length=200)]


class CancelBody(Body):
    """One branch, or all."""

    branch: Name | None = None


class FitBody(Body):
    """A probe to be fitted to the session's traces."""

    layer: int | None = None
    position: Name = "decision"
    model: int = 0


def read_body(kind: type[B], raw: bytes) -> B:
    """A body as its record.

    Raises:
        InputError: in one line, for what is no JSON, or not this.
    """
    try:
        value = json.loads(raw)
        return kind.model_validate(_with_sound_text(value))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise InputError(f"{where}: {first['msg']}") from None
    except (ValueError, RecursionError):
        raise InputError("body: got no JSON, expected an object") from None


def _with_sound_text(value: Any) -> Any:
    """Lone surrogates replaced, as wherever text is read."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, dict):
        return {key: _with_sound_text(item) for key, item in value.items()}
    return [_with_sound_text(item) for item in value] if isinstance(value, list) else value


def _direction(session: Session, name: str) -> Direction:
    for each in session.readers:
        if each.name == name:
            return each.reader.direction() if isinstance(each.reader, Probe) else each.reader
    known = ", ".join(each.name for each in session.readers)
    raise InputError(f"reader: got {name!r}, expected one of {known or 'none, since the session has none'}")
