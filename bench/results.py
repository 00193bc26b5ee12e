"""What a part of the benchmark found, as plain data, and how it is printed."""

from dataclasses import asdict, dataclass, field

from bench.measure import cpu_ratio, ratio


@dataclass
class Part:
    """Findings of one part.

    Attributes:
        name, about: of the part; what is compared, in words.
        notes: lines on how it was measured, and who was left out.
        rows: {"group", "name", "median", "min", "seconds", "cpu", "ratio", "base"}; times in seconds, `cpu` the
            median of the processor time, `ratio` against the contender called `base`, or None.
        aims: {"text", "value", "by_cpu", "unit", "aim", "least", "met"}.
        checks: {"text", "difference", "limit", "agree"}, of contenders' results.
        failures: lines on contenders that failed.
    """

    name: str
    about: str
    notes: list = field(default_factory=list)
    rows: list = field(default_factory=list)
    aims: list = field(default_factory=list)
    checks: list = field(default_factory=list)
    failures: list = field(default_factory=list)

    def add(self, group, timed, base=None):
        """Rows of one group from {name: Timed}."""
        for name, one in timed.items():
            self.rows.append(
                {
                    "group": group,
                    "name": name,
                    "median": one.median,
                    "min": min(one.seconds),
                    "seconds": one.seconds,
                    "cpu": sorted(one.cpu)[len(one.cpu) // 2],
                    "ratio": ratio(one, timed[base]) if base in timed else None,
                    "base": base if base in timed else None,
                }
            )

    def aim(self, text, value, aim, least=False, unit="", by_cpu=None):
        """Compare a value with what it should be at most, or at least; `by_cpu` is the same by processor time."""
        met = bool(value >= aim if least else value <= aim)
        row = {"text": text, "value": value, "unit": unit, "aim": aim, "least": least, "met": met, "by_cpu": by_cpu}
        self.aims.append(row)

    def aim_ratio(self, text, one, other, aim, least=False):
        """Compare the ratio of two Timed with what it should be."""
        self.aim(text, ratio(one, other), aim, least, by_cpu=cpu_ratio(one, other))

    def check(self, text, difference, limit):
        """Note whether two results agree."""
        self.checks.append({"text": text, "difference": difference, "limit": limit, "agree": bool(difference <= limit)})

    @property
    def good(self):
        """Whether nobody failed and all results agree; aims may be missed."""
        return not self.failures and all(check["agree"] for check in self.checks)

    def as_dict(self):
        """Plain data, for JSON."""
        return {**asdict(self), "good": self.good}


def lines(part):
    """A part's findings as printed lines."""
    yield f"== {part.name}: {part.about}"
    for note in part.notes:
        yield f"   {note}"
    group = None
    for row in part.rows:
        if row["group"] != group:
            group = row["group"]
            yield ""
            yield f"   {group:<56}{'median':>10}{'least':>10}{'cpu':>10}   ratio"
        against = f"{row['ratio']:8.2f} x {row['base']}" if row["base"] and row["base"] != row["name"] else ""
        yield f"     {row['name']:<54}{_time(row['median'])}{_time(row['min'])}{_time(row['cpu'])}{against}"
    yield ""
    for check in part.checks:
        word = "agree" if check["agree"] else "DIFFER"
        yield f"   {word}: {check['text']}: by {check['difference']:.2g}, at most {check['limit']:.2g} is allowed"
    for aim in part.aims:
        bound = "at least" if aim["least"] else "at most"
        word = "met" if aim["met"] else "missed"
        by_cpu = "" if aim["by_cpu"] is None else f", {aim['by_cpu']:.2f} by processor time"
        value = f"{aim['value']:.2f}{aim['unit']}{by_cpu}"
        yield f"   {aim['text']} = {value} (aim {bound} {aim['aim']:g}{aim['unit']}: {word})"
    for failure in part.failures:
        yield f"   FAILED: {failure}"


def _time(seconds):
    return f"{seconds:8.2f} s" if seconds >= 10 else f"{seconds * 1000:7.1f} ms"
