"""Rows of a data set on the Hugging Face hub, read as a stream through ``datasets`` (extra ``[hub]``).

``hf:owner/name[:config][:split][@revision]``; ``owner/name`` may be a local folder. One word after the name is a split
where the data set has one of that name, else a configuration. Without a split it is ``train``, or the only one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

from safekey_interp.data.rows_in_memory import RowsInMemory
from safekey_interp.errors import InputError

PREFIX = "hf:"
_FORM = "hf:owner/name[:config][:split][@revision]"
_REFERENCE = re.compile(r"(?P<name>[^:@]+)(?::(?P<first>[^:@]+))?(?::(?P<second>[^:@]+))?(?:@(?P<revision>[^:@]+))?")
_LONGEST = 200


class HubName(NamedTuple):
    """What a reference names."""

    name: str
    words: tuple[str, ...]
    """Configuration and split, or one of them."""
    revision: str | None


class RowsOfHub(RowsInMemory):
    """A data set's rows, fetched as they are asked for; each walk asks anew."""

    is_held = False

    def __init__(self, reference: str) -> None:
        """Nothing is fetched yet.

        Args:
            reference: as the user typed it.

        Raises:
            InputError: the reference cannot be read, or ``datasets`` is not installed.
        """
        self.name = reference
        match = _REFERENCE.fullmatch(reference.removeprefix(PREFIX))
        if match is None:
            raise InputError(f"{reference}: not the name of a data set; expected {_FORM}")
        words = tuple(word for word in (match["first"], match["second"]) if word)
        try:
            import datasets  # noqa: F401
        except ImportError:
            raise InputError(
                f"{reference}: needs the package datasets, which is not installed; pip install datasets"
            ) from None
        super().__init__(_Stream(HubName(match["name"], words, match["revision"]), reference))

    def where(self, number: int) -> str:
        """Counted from 0, as datasets does."""
        return f"{self.name}, row [{number}]"


class _Stream:
    def __init__(self, hub: HubName, reference: str) -> None:
        self._hub, self._reference = hub, reference

    def __iter__(self) -> Iterator[Any]:
        rows = iter(self._rows)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except Exception as error:  # of the network, the hub or any file format
                raise self._failed(error) from error
            yield row

    @cached_property
    def _rows(self) -> Any:
        name, words, revision = self._hub
        try:
            splits, words = self._splits(name, words, revision)
        except InputError:
            raise
        except Exception as error:
            raise self._failed(error) from error
        wanted = words[-1] if words else "train" if "train" in splits else next(iter(splits))
        if wanted not in splits or (not words and "train" not in splits and len(splits) > 1):
            raise InputError(
                f"{self._reference}: expected a split, one of {', '.join(map(str, splits))}, as in {_FORM}"
            )
        return splits[wanted]

    @staticmethod
    def _splits(name: str, words: tuple[str, ...], revision: str | None) -> tuple[Any, tuple[str, ...]]:
        """The splits of a configuration, and the word that names one of them."""
        import datasets
        from datasets.utils.logging import disable_progress_bar

        disable_progress_bar()
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # else each retry is a line

        def load(config: str | None) -> Any:
            return datasets.load_dataset(name, config, revision=revision, streaming=True)

        if len(words) != 1:
            return load(words[0] if words else None), words[1:]
        configs = datasets.get_dataset_config_names(name, revision=revision)
        if words[0] in configs:
            return load(words[0]), ()
        return load(None), words

    def _failed(self, error: Exception) -> InputError:
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason if len(reason) <= _LONGEST else f"{reason[:_LONGEST]}…"
        remedy = (
            "check the name and the network, log in (hf auth login) for a gated one, or download it and name its files"
        )
        return InputError(f"{self._reference}: cannot be read from the hub: {reason}; {remedy}")
