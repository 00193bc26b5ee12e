"""Files that --plugin names: run once, under a name that no module has, and what fails in them is one line."""

import sys

import pytest

from stnet.cli import load_plugin
from stnet.utils.errors import UserError


def test_a_plugin_runs_once_and_replaces_no_module_of_its_name(tmp_path):
    (tmp_path / "models.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_suffix('.ran').open('a').write('x')\n"
    )
    models = sys.modules.get("models")
    for _ in range(2):
        load_plugin(str(tmp_path / "models.py"))
    assert (tmp_path / "models.ran").read_text() == "x"
    assert sys.modules.get("models") is models


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("(", "SyntaxError"),
        ("import nothing", "nothing"),
        ("raise SystemExit(0)", "Exit"),
    ],
)
def test_a_plugin_that_fails_is_one_line(tmp_path, code, message):
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(UserError, match=f"plugin .*mine.py fails: .*{message}"):
        load_plugin(str(tmp_path / "mine.py"))


def test_a_plugin_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no such Python file"):
        load_plugin(str(tmp_path / "none.py"))
