"""Imports go one way: a file imports only from rooms on lower floors, and no files import each other in a circle."""

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
# Modules of stnet/ that are files, such as stnet/config.py, lie on the floor of "stnet".
FLOORS = {
    "utils": 1,
    "stnet": 2,
    "models": 3,
    "reader": 3,
    "metrics": 3,
    "report": 4,
    "weights": 4,
    "backends": 5,
    "evaluation": 6,
    "quantize": 6,
    "export": 7,
    "training": 7,
    "inference": 8,
    "timeline": 8,
    "serve": 9,
    "tools": 9,
}
TOGETHER = {"inference", "timeline"}  # Predictor.timeline makes timelines, and these hold results
ENTRIES = ["train", "finetune", "eval", "predict", "inference_model", "serve_model"]  # above all floors, as are these:
OTHERS = ["stnet", "stnet.__main__"]


def module_of(path):
    names = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def walked(folder):
    """Python files below a folder, those of linked folders too."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from walked(path)
        elif path.suffix == ".py":
            yield path


FILES = {module_of(path): path for path in walked(PROJECT / "stnet")}


def imported(source, late=True):
    """Modules that a source imports, also late ones; not those for type checkers alone."""

    def visit(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                for alias in child.names:
                    name = f"{child.module}.{alias.name}"
                    yield name if name in FILES else child.module
            yield from visit(child)

    yield from visit(ast.parse(source))


def room_of(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS else "stnet"


BELOW = [name for name in FILES if name not in OTHERS and name.rpartition(".")[2] not in ENTRIES]
IMPORTS = {name: {*imported(FILES[name].read_text(encoding="utf-8"))} & {*FILES} - {name} for name in FILES}


@pytest.mark.parametrize("module", BELOW)
def test_a_file_imports_only_from_floors_below(module):
    own = room_of(module)
    climbs = {
        name
        for name in IMPORTS[module]
        if name != "stnet"
        and (name in OTHERS or name.rpartition(".")[2] in ENTRIES or FLOORS[room_of(name)] > FLOORS[own])
    }
    level = {room_of(name) for name in IMPORTS[module] - {"stnet"} if FLOORS[room_of(name)] == FLOORS[own]}
    assert (climbs, level - (TOGETHER if own in TOGETHER else {own})) == (set(), set())


def circles(imports):
    """Groups of modules each of which reaches the others (Tarjan)."""
    order, low, stack, found = {}, {}, [], []

    def visit(name):
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in imports[name]:
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in imports:
        if name not in order:
            visit(name)
    return found


def test_no_files_import_each_other_in_a_circle():
    assert circles(IMPORTS) == []


def test_a_late_import_and_a_circle_are_seen():
    source = "import stnet.config\n\ndef f():\n    from stnet.training import trainer\n"
    assert {*imported(source)} == {"stnet.config", "stnet.training.trainer"}
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
