"""Registry from names to classes: models, clip formats, engines and metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from stnet.utils.errors import UserError

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """Case-insensitive mapping from a name to a class or function.

    Args:
        kind: noun for messages ("model", "metric", ...).
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, tuple[str, Entry]] = {}  # by the name in capitals

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Decorator that registers a class or function. Raises ValueError for a name that is taken."""

        def add(entry: Entry) -> Entry:
            if name.upper() in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name.upper()] = name, entry
            return entry

        return add

    def get(self, name: str) -> Entry:
        """The entry called `name`, in any case. Raises UserError that lists the known names."""
        try:
            return self._entries[str(name).upper()][1]
        except KeyError:
            raise UserError(f"unknown {self.kind} {name!r:.60}; known: {', '.join(self.names())}") from None

    def names(self) -> list[str]:
        """All names as they were registered, sorted."""
        return sorted(name for name, _ in self._entries.values())
