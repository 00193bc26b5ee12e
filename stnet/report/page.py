"""From contents to one HTML file."""

from __future__ import annotations

import base64
import datetime
import io
import math
import os
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from stnet.utils.atomic import write_text
from stnet.utils.files import StrPath

if TYPE_CHECKING:
    from PIL import Image

    from stnet.config import Config

Facts = list[tuple[str, str]]


@dataclass
class Table:
    """A table that sorts, and is shown in pages.

    Attributes:
        columns: (title, kind): "text", "class" (its number), "count", "share" (0 to 1), "number".
        rows: plain data, None where there is nothing to say.
        differ: two columns; a row where they differ is wrong, and the page can show these alone.
        search: whether the page offers to search in it.
    """

    id: str
    columns: list[tuple[str, str]]
    rows: list[list[Any]]
    differ: tuple[int, int] | None = None
    search: bool = False

    @property
    def json(self) -> dict[str, Any]:
        """What the page's program reads."""
        return {"kinds": [kind for _, kind in self.columns], "rows": self.rows, "differ": self.differ}


def write_page(path: StrPath, template: str, **contents: Any) -> None:
    """Fill a template of this folder and write the page, atomically. Raises UserError where it cannot be written."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = FileSystemLoader(os.path.dirname(__file__))
    environment = Environment(
        loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    write_text(path, environment.get_template(template).render(**contents))


def shown(text: object) -> str:
    """A text as a page shows it: bytes of a file name that are not UTF-8 are escaped."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def as_yaml(config: Config) -> str:
    """A configuration as it is typed."""
    return shown(yaml.safe_dump(config.as_dict(), sort_keys=False, allow_unicode=True))


def plain(value: Any, digits: int = 4) -> float | None:
    """A number for JSON; None where it is not finite."""
    return round(float(value), digits) if math.isfinite(value) else None


def picture(image: Image.Image, form: str) -> str:
    """An image as a data URI. Args: form: PNG or JPEG."""
    content = io.BytesIO()
    image.save(content, form, quality=75)
    return f"data:image/{form.lower()};base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def versions() -> Facts:
    """The date, and what computed."""
    import paddle

    return [
        ("Written", datetime.datetime.now().astimezone().isoformat(" ", "seconds")),
        ("Versions", f"Paddle {paddle.__version__}, NumPy {np.__version__}, Python {platform.python_version()}"),
    ]
