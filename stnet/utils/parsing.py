"""YAML and JSON of untrusted files as plain data, and their texts escaped for a terminal."""

from __future__ import annotations

import copy
import json
import logging
import re
from typing import Any, Union

import yaml

MAX_YAML = 1 << 20  # bytes; names of 20,000 classes take 0.6 MB
_MAX_VALUES = 1 << 18  # of a document, aliases expanded
_MAX_DEPTH = 50  # collections in collections
_MAX_TEXT = 4096  # characters of one value
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the second takes half a minute for 1 MB
# Characters that move a terminal's cursor, end a line or change the direction of writing.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

Sizes = dict[int, tuple[int, int]]  # id of a node -> (values below it, depth)


def parse_yaml(text: Union[str, bytes]) -> Any:
    """Parse a YAML document into plain data. Raises ValueError, of one line; for bytes, also UnicodeDecodeError."""
    if len(text) > MAX_YAML:
        raise ValueError(f"it is of {len(text)} bytes, more than the {MAX_YAML} that are read")
    try:
        loader = _LOADER(text if isinstance(text, str) else text.decode("utf-8-sig"))
        node = loader.get_single_node()
        if node is None:
            return None
        _check_node(node, {})
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:300]) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (LookupError, TypeError, AttributeError, OverflowError) as error:  # `!!int ''`, `!!timestamp x`
        raise ValueError(f"a value is not of its type ({type(error).__name__})") from None


def _check_node(node: yaml.Node, known: Sizes) -> tuple[int, int]:
    """(values, depth) of a node with aliases expanded: they can grow exponentially, or refer to themselves."""
    if isinstance(node, yaml.ScalarNode):
        if len(node.value) > _MAX_TEXT:
            raise ValueError(f"a value is of {len(node.value)} characters, more than {_MAX_TEXT}")
        return 1, 0
    if id(node) not in known:
        known[id(node)] = _MAX_VALUES, 0  # while it is counted: a node that contains itself is too large
        pairs = isinstance(node, yaml.MappingNode)
        children = [child for pair in node.value for child in pair] if pairs else node.value
        counted = [_check_node(child, known) for child in children]
        size, depth = 1 + sum(size for size, _ in counted), 1 + max((depth for _, depth in counted), default=0)
        if size > _MAX_VALUES or depth > _MAX_DEPTH:
            raise ValueError("it holds too many values, or is nested too deeply")
        known[id(node)] = size, depth
    return known[id(node)]


def parse_json(text: Union[str, bytes]) -> Any:
    """Parse a JSON document, with or without a byte order mark. Raises ValueError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def printable(text: str, longest: int = 0) -> str:
    """Escape control characters, and cut a text that is longer than `longest` characters, if that is set."""
    if longest and len(text) > longest:
        text = f"{text[:longest]}..."
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class PrintableFormatter(logging.Formatter):
    """Log formatter that escapes control characters and line ends in the arguments of a message."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record with its text arguments escaped."""
        if isinstance(record.args, tuple):
            cited = [printable(str(arg)) if isinstance(arg, (str, Exception)) else arg for arg in record.args]
            record = copy.copy(record)
            record.args = tuple(cited)
        return "\n".join(map(printable, super().format(record).split("\n")))
