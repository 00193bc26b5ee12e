"""The log of a server: lines with a date, or JSON objects."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone

from stnet.utils.parsing import PrintableFormatter


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC, ISO 8601), level, message, and what a record has as `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        content = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(content)


def set_format(as_json: bool) -> None:
    """Let every handler of the root logger write JSON, or plain lines with a date."""
    plain = PrintableFormatter("[%(levelname)s %(asctime)s] %(message)s", "%Y-%m-%d %H:%M:%S")
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonFormatter() if as_json else plain)
