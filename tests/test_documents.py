"""What the documents tell users to type, typed; and both languages say the same."""

import json
import re
import shutil
from contextlib import ExitStack
from importlib.util import find_spec

import pytest
from documents import (
    CHINESE,
    ONE_PAGE,
    PAGES,
    PROJECT,
    blocks,
    copy_project,
    draw,
    put_checkpoint,
    put_data,
    read,
    served,
    type_block,
    typed,
    up_to_date,
    without_comments,
    write_released_weights,
)
from test_floors import FLOORS

# What a test machine cannot do; the document says so in a comment before the block.
NOT_TYPED = {
    "CONTRIBUTING.md": ["the network, and minutes"],
    "README.md": ["four GPUs"],
    "docs/deployment.md": ["PaddleX", "PaddleX, and minutes"],
    "docs/precision.md": ["264 clips of your own, and minutes"],
    "docs/serving.md": ["nginx", "Docker"],
    "docs/performance.md": ["an idle machine for an hour", "a GPU"],
    "docs/training.md": ["two machines"],
}
# A Chinese page may lag behind: it says of which version it is, and is compared while that is this one.
PAIRS = [(ours, theirs) for ours, theirs in CHINESE.items() if up_to_date(theirs)]
# The Chinese ones with commands that differ, if only by a comment.
TRANSLATED = [theirs for ours, theirs in PAIRS if typed(theirs) != typed(ours)]
# What takes minutes, or is said twice: typed by bash run.sh test --all.
LONG = ["docs/reliability.md", "docs/timeline.md", *TRANSLATED]
WALK = {"docs/training.md": "## Your own videos", "docs/zh/training.md": "## 自己的视频"}
FROM_NOTHING = ["README.md", "README_cn.md", *WALK]  # the others begin after a training run


def with_commands(pages):
    return [
        pytest.param(page, marks=pytest.mark.long if page in LONG else pytest.mark.slow)
        for page in pages
        if typed(page)
    ]


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


def may_fail(command, said):
    """`check` ends with 1 where clips are bad, as some of the walk are; ONNX files need a package."""
    if "--format=onnx" in command and not find_spec("paddle2onnx"):
        return "ONNX files need two packages" in said
    return command.startswith("python -m tools.dataset check --list mine/")


@pytest.mark.parametrize("page", with_commands(dict.fromkeys([*PAGES, *TRANSLATED, *ONE_PAGE])))
def test_what_a_document_says_works_as_typed(page, checkout, home):
    if page not in FROM_NOTHING:
        put_checkpoint(checkout, home / ".paddle" / "weights" / "STNET_final.pdparams")
    with ExitStack() as servers:
        for block in typed(page):
            if "openvino" in block.text and not has_openvino():
                pytest.skip("this Paddle comes without OpenVINO")
            if "run.sh serve" in block.text:
                if not (find_spec("fastapi_offline") and shutil.which("curl")):
                    pytest.skip("bash run.sh setup serve, and curl, are needed")
                servers.enter_context(served(block, checkout, home))
                continue
            failed, said = type_block(block, checkout, home)
            assert [command for command in failed if not may_fail(command, said)] == [], said
            assert "Traceback" not in said, said
            assert '"error"' not in said, said
            if "mine/val.clean.list" in block.text:
                check_the_walk(checkout, said)


def has_openvino():
    from paddle import inference, version

    return hasattr(inference.Config, "enable_openvino_engine") and version.cuda() == "False"


def check_the_walk(checkout, said):
    """Of six clips of each of four classes, one of which is cut short, four and one are left."""
    lists = {name: (checkout / "mine" / f"{name}.list").read_text() for name in ("train.clean", "val.clean")}
    assert {name: text.count("\n") for name, text in lists.items()} == {"train.clean": 16, "val.clean": 4}
    assert "_005.mp4" not in "".join(lists.values())
    assert "train list: 16 clips, 16 read, 0 of them unreadable" in said
    assert "valid list: 4 clips, 4 read, 0 of them unreadable" in said
    assert "training takes about" in said
    results = json.loads((checkout / "results" / "eval_results.json").read_text(encoding="utf-8"))
    assert (results["count"], results["skipped"]) == (4, [])


def small_walk(page):
    """The walk with the values that it gives for a machine without a GPU and without downloads."""
    (walk,) = [block for block in blocks(page) if "mine/val.clean.list" in block.text]
    (small,) = re.findall("`(config=.* start=none)`", read(page).split(WALK[page])[1].split("\n## ")[0])
    return walk._replace(text=re.sub("^config=.*$", small, walk.text, flags=re.M))


@pytest.mark.long
def test_the_walk_works_with_the_values_for_a_machine_without_a_gpu(checkout, home):
    failed, said = type_block(small_walk("docs/training.md"), checkout, home)
    assert [command for command in failed if not may_fail(command, said)] == [], said
    check_the_walk(checkout, said)


@pytest.mark.long
def test_the_demo_works_as_typed(checkout, home):
    (block,) = [block for block in blocks("README.md") if "run.sh demo" in block.text]
    (command,) = re.findall("bash run.sh demo", block.text)
    failed, said = type_block(block._replace(text=f"time {command}"), checkout, home)
    assert failed == [], said
    assert re.search("accuracy", said), said


def test_what_is_not_typed_is_said_in_the_document_and_known():
    marked = {page: [block.needs for block in blocks(page) if block.needs] for page in ["CONTRIBUTING.md", *PAGES]}
    assert {page: needs for page, needs in marked.items() if needs} == NOT_TYPED


@pytest.mark.parametrize("ours, theirs", PAIRS)
def test_both_languages_have_the_same_headings_commands_and_tables(ours, theirs):
    """Else translate the change, or let line 5 of the Chinese page say 对应版本：X（英文版已更新）."""
    assert heading_levels(ours) == heading_levels(theirs)
    assert commands(ours) == commands(theirs)
    assert table_sizes(ours) == table_sizes(theirs)


def test_both_languages_tell_the_same_small_walk():
    assert len({small_walk(page).text for page in WALK if page in ("docs/training.md", *dict(PAIRS).values())}) == 1


@pytest.mark.parametrize("page", PAGES[1:])
def test_a_page_and_its_translation_link_to_each_other(page):
    name = page.split("/")[-1]
    assert f"({page})" in read("README.md")
    assert f"({CHINESE.get(page, page)})" in read("README_cn.md")
    if page in CHINESE:
        assert f"\n[中文](zh/{name})\n" in read(page)
        assert re.search(rf"\n\[English\]\(\.\./{name}\)\n\n对应版本：\d+\.\d+\.\d+", read(CHINESE[page]))


@pytest.mark.parametrize("page", ["README.md", "README_cn.md"])
def test_the_readme_is_short(page):
    text = read(page)
    assert text.count("\n") <= 160
    assert len(text.split()) <= 1200


def test_the_errors_in_the_faq_are_those_of_the_code():
    files = [path for name in ("stnet", "models", "reader", "tools") for path in (PROJECT / name).rglob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)
    code = re.sub(r'"\s+f?"', "", code)  # literals that the parser joins
    messages = re.findall("^## `(.+)`$", read("docs/faq.md"), re.M)
    assert len(messages) == 11
    parts = [part.strip(" ;") for message in messages for part in message.split("…")]
    assert [part for part in parts if part not in code] == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", "README_cn.md", *PAGES[1:], *CHINESE.values()])
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", read(page))
    assert [name for name in targets if not ((PROJECT / page).parent / name).exists()] == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md", "docs/zh/architecture.md"])
def test_the_files_named_exist(page):
    names = set(re.findall(r"`([\w./]+(?:\.py|\.sh|\.toml|\.yaml|/))`", read(page)))
    paths = [name for name in names if "/" in name and "NAME" not in name]
    assert len(paths) > 3
    assert [path for path in paths if not (PROJECT / path).exists()] == []


@pytest.mark.parametrize("page", ["docs/architecture.md", "docs/zh/architecture.md"])
def test_the_rooms_stand_on_their_floors(page):
    rows = re.findall(r"^\| (\d) \| `(?:stnet/)?(\w+)/` \|", read(page), re.M)
    assert {room: int(floor) for floor, room in rows} == FLOORS


def test_the_fast_tests_are_some_of_every_room():
    (fast,) = re.findall(r"fast=\((.*?)\)", (PROJECT / "run.sh").read_text(encoding="utf-8"), re.S)
    paths = [path.split("::")[0] for path in fast.split()]
    assert [path for path in paths if not (PROJECT / path).exists()] == []
    assert {"backends", "metrics", "models", "reader", "tools", "utils", "weights"} <= {p.split("/")[1] for p in paths}


def heading_levels(page):
    text = re.sub("```.*?```", "", read(page), flags=re.S)
    return [len(marks) for marks in re.findall(r"^(#+) ", text, re.M)]


def commands(page):
    return [(block.language, without_comments(block.text), block.needs) for block in blocks(page) if block.language]


def table_sizes(page):
    """Rows of each table."""
    return [table.count("\n") + 1 for table in re.findall(r"(?:^ *\|.*\n?)+", read(page), re.M)]
