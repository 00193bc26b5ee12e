"""HTML pages from templates, and the formats of their contents."""

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
    """A sortable table, shown in pages."""

    id: str
    columns: list[tuple[str, str]]  # title and kind: "text", "class" (its number), "count", "share" (0 to 1), "number"
    rows: list[list[Any]]  # plain data; None: an empty cell
    differ: tuple[int, int] | None = None  # columns that differ in a wrong row; the page can show these rows alone
    search: bool = False  # has a search field

    @property
    def json(self) -> dict[str, Any]:
        """Data for the page's script."""
        return {"kinds": [kind for _, kind in self.columns], "rows": self.rows, "differ": self.differ}


def write_page(path: StrPath, template: str, **contents: Any) -> None:
    """Fill a template of this folder and write the page, atomically. Raises UserError if it cannot be written."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = FileSystemLoader(os.path.dirname(__file__))
    environment = Environment(
        loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    write_text(path, environment.get_template(template).render(**contents))


def shown(text: object) -> str:
    """Escape bytes of file names that are not UTF-8."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def as_yaml(config: Config) -> str:
    """Format a configuration as YAML."""
    return shown(yaml.safe_dump(config.as_dict(), sort_keys=False, allow_unicode=True))


def plain(value: Any, digits: int = 4) -> float | None:
    """Round a number for JSON; None if it is not finite."""
    return round(float(value), digits) if math.isfinite(value) else None


def picture(image: Image.Image, form: str) -> str:
    """Encode an image as a data URI; `form` is PNG or JPEG."""
    content = io.BytesIO()
    image.save(content, form, quality=75)
    return f"data:image/{form.lower()};base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def versions() -> Facts:
    """The date, and versions of Paddle, NumPy and Python."""
    import paddle

    return [
        ("Written", datetime.datetime.now().astimezone().isoformat(" ", "seconds")),
        ("Versions", f"Paddle {paddle.__version__}, NumPy {np.__version__}, Python {platform.python_version()}"),
    ]
