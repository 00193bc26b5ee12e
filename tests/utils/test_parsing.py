"""YAML and JSON of files that anyone may have written."""

import logging

import pytest
import yaml
from hostile_yaml import HOSTILE

from stnet.utils.parsing import PrintableFormatter, parse_json, parse_yaml, printable


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_refused_in_one_line(name, capfd):
    text, reason = HOSTILE[name]
    with pytest.raises(ValueError, match=reason) as error:
        parse_yaml(text)
    assert len(str(error.value)) <= 300
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}",
        "[1, 1e3, 1:30, yes, null, 2001-01-02]",
        "a: é 跑步",
        "[[], {}]",
    ],
)
def test_ordinary_yaml_is_what_pyyaml_gives(text):
    assert parse_yaml(text) == parse_yaml(b"\xef\xbb\xbf" + text.encode()) == yaml.safe_load(text)


def test_json_is_read_with_a_byte_order_mark_and_refused_where_it_is_too_deep():
    assert parse_json(b'\xef\xbb\xbf{"a": [1, "\xc3\xa9"]}') == {"a": [1, "é"]}
    for text in ("[" * 100_000, "{", b"\xff"):
        with pytest.raises(ValueError):  # noqa: PT011
            parse_json(text)


def test_control_characters_are_escaped_and_long_texts_cut():
    assert printable("跑步 é\tü ‌🏃‍♀️") == "跑步 é\tü ‌🏃‍♀️"
    assert printable("\x1b[2J\r\n\x07\x7f\x9b \u2028\u202e\u2066") == r"\x1b[2J\r\n\x07\x7f\x9b \u2028\u202e\u2066"
    assert printable("abcdef", 3) == "abc..."
    assert printable("\x1b" * 4, 4) == r"\x1b" * 4


def test_a_log_line_holds_no_control_characters_but_its_own_ends():
    record = logging.LogRecord("stnet", logging.INFO, "", 0, "%s\nsecond", ("a\x1b[2Jb\rc",), None)
    assert PrintableFormatter("%(message)s").format(record) == "a\\x1b[2Jb\\rc\nsecond"


def test_a_name_with_a_line_end_makes_no_line_of_the_log():
    record = logging.LogRecord("stnet", logging.INFO, "x.py", 1, "skipped %s\n  %d more", ("a\nb\x1b.mp4", 2), None)
    assert PrintableFormatter("%(message)s").format(record) == "skipped a\\nb\\x1b.mp4\n  2 more"
