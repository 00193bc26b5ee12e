"""What the documents tell users to type, typed; and that both languages say the same."""

import json
import re

import pytest
from documents import (
    BOTH_LANGUAGES,
    CHINESE,
    PAGES,
    PROJECT,
    SETS_UP,
    Block,
    blocks,
    copy_project,
    draw,
    make_checkout,
    put_data,
    read,
    type_block,
    typed,
    without_comments,
    write_released_weights,
)

# What a test machine cannot do. Each stands in the document in a comment before the block: <!-- needs: ... -->
NOT_TYPED = {
    "README.md": ["two machines"],
    "docs/performance.md": ["an idle machine for a quarter of an hour", "a GPU"],
}
# What takes minutes: only bash run.sh test --all types it.
LONG = ["docs/reliability.md", *CHINESE.values()]
# `check` ends with 1 where clips are bad, and the README's walk has some.
MAY_FAIL = re.compile(r"python -m tools\.dataset check --list mine/.*")


def has_to_type(page):
    return any(typed(page))


TYPED = [page for page in [*PAGES, *CHINESE.values(), *BOTH_LANGUAGES] if has_to_type(page)]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home that holds nothing but the released weights, where a download would put them."""
    folder = tmp_path_factory.mktemp("home")
    write_released_weights(folder / ".paddle" / "weights")
    return folder


@pytest.fixture
def checkout(tmp_path, drawn):
    folder = tmp_path / "my checkout"
    copy_project(folder)
    put_data(folder, drawn)
    return folder


@pytest.mark.parametrize("page", [pytest.param(page, marks=[pytest.mark.long] * (page in LONG)) for page in TYPED])
def test_what_a_document_says_works_as_typed(page, checkout, home):
    if not page.startswith("README"):
        make_trained(checkout, home)
    for block in typed(page):
        if "openvino" in block.text:
            needs_openvino()
        failed, said = type_block(block, checkout, home)
        assert [command for command in failed if not may_fail(command, said)] == [], said
        assert "Traceback" not in said, said
