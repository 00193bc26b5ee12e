"""What the processor can do, as far as a number format depends on it."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from stnet import runtime


class Processor(NamedTuple):
    """A processor, told apart from others by its model and its instruction sets."""

    model: str
    vnni: bool  # products of bytes are summed without saturating
    bf16: bool
    instructions: str  # digest of the names of all instruction sets


def this_processor() -> Processor:
    """The one that this runs on; outside of Linux, one without a name."""
    facts = dict(_field(line) for line in runtime.processor().splitlines() if ":" in line)
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    model = " ".join(facts[key] for key in ("model name", "cpu family", "model", "stepping") if key in facts)
    # what saturates is x86's older way, which all of ARM is without
    vnni = bool(flags & {"avx512_vnni", "avx_vnni", "asimd"})
    bf16 = bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
    return Processor(model, vnni, bf16, hashlib.sha256(" ".join(sorted(flags)).encode()).hexdigest()[:16])


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()
