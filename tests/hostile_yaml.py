"""YAML that takes time or memory without measure, or that raises what a parser should not."""


def grown(first, line):
    """A document in which each of ten lines holds the line before it nine times."""
    return "\n".join([first, *(line.format(i, ", ".join([f"*a{i - 1}"] * 9)) for i in range(1, 10))])


HOSTILE = {
    "aliases of aliases": (grown("a0: &a0 [x]", "a{0}: &a{0} [{1}]"), "too many values"),
    "merged mappings": (grown("a0: &a0 {x: 1}", "a{0}: &a{0} {{<<: [{1}]}}"), "too many values"),
    "itself": ("a: &a [1, *a]", "too many values"),
    "itself as a key": ("a: &a {? *a : 1}", "too many values"),
    "depth": ("[" * 400 + "]" * 400, "nested too deeply"),
    "more depth": ("[" * 100_000, "nest"),
    "depth by aliases": ("a0: &a0 []\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 99)), "too deeply"),
    "a number of base 60": ("1" + ":1" * 3000, "a value is of 6001 characters"),
    "a long text": ("a" * 5000, "a value is of 5000 characters"),
    "size": ("- a\n" * 300_000, "it is of 1200000 bytes"),
    "no number": ("!!int ''", "not of its type"),
    "no time": ("!!timestamp x", "not of its type"),
    "no day": ("2001-99-99", "month"),
    "no key": ("{[]: 1}", "unhashable|unacceptable"),
    "a Python object": ("!!python/object/apply:os.system [echo hacked]", "could not determine a constructor"),
    "two documents": ("a\n---\nb", "a single document"),
    "no UTF-8": (b"\xff\xfe\x00", "decode"),
}
