"""The house has floors: a file imports only from rooms below its own."""

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
FLOORS = {
    "core": 1,
    "models": 2,
    "reader": 2,
    "weights": 2,
    "metrics": 2,
    "backends": 3,
    "engine": 4,
    "serve": 5,
    "tools": 5,
    "stnet": 6,
    "bench": 6,
}
FILES = sorted(path for room in FLOORS for path in (PROJECT / room).rglob("*.py"))


def rooms_imported(source):
    """Rooms that a file's source imports from, also late."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (name.split(".")[0] for name in names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_a_file_imports_only_from_floors_below(path):
    own = path.relative_to(PROJECT).parts[0]
    climbs = {
        room
        for room in rooms_imported(path.read_text(encoding="utf-8"))
        if room in FLOORS and room != own and FLOORS[room] >= FLOORS[own]
    }
    assert climbs == set()


def test_a_late_import_is_seen():
    source = "import core.config\n\ndef f():\n    from engine import trainer\n"
    assert sorted(rooms_imported(source)) == ["core", "engine"]


def test_the_public_names_are_the_same_in_both_places():
    import stnet
    from stnet import api

    assert stnet.__all__ == api.__all__
    assert stnet.Precision is api.Precision
