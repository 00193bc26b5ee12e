"""What a server counts: plain numbers, for whoever publishes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic


@dataclass
class Stats:
    """Sums since the start, and how many places are taken now."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)  # by what was asked for, and how it ended
    queue: int = 0  # places taken
    batches: Counter[int] = field(default_factory=Counter)  # by size
    decodings: int = 0
    decoders_died: int = 0  # killed for taking too long, or crashed
    decoding_seconds: float = 0.0
    computing_seconds: float = 0.0
    lock: Lock = field(default_factory=Lock)  # for what several threads count

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Count a reading, and its time."""
        begun = monotonic()
        try:
            yield
        finally:
            with self.lock:
                self.decodings += 1
                self.decoding_seconds += monotonic() - begun

    def decoder_died(self) -> None:
        """Count a decoder that ended itself, or had to be ended."""
        with self.lock:
            self.decoders_died += 1

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Count the network's time."""
        begun = monotonic()
        try:
            yield
        finally:
            self.computing_seconds += monotonic() - begun
