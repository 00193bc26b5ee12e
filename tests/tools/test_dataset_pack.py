import io
import json
import os
import pickle
import pickletools
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_settings, write_config, write_video
from PIL import Image

from stnet import cli
from stnet.reader import decode, pickles
from stnet.reader.formats import Clip
from stnet.reader.pickles import load_clip_pickle
from stnet.reader.sampling import sample_frames
from stnet.tools.dataset import pack, show
from stnet.tools.dataset.__main__ import main
from stnet.utils.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def source(tmp_path):
    """Four clips, two of one name, and the list of them."""
    folder = tmp_path / "my 视频"
    for i, name in enumerate(["a b/x.mp4", "c/x.mp4", "片.mp4", "d.mp4"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(folder / name, frames=20 + i, size=(64, 48), seed=i)
    (folder / "train.list").write_text("a b/x.mp4 0\nc/x.mp4 1\n片.mp4 2\nd.mp4 3\n", encoding="utf-8")
    return folder


def run_pack(folder, out, *flags):
    return main(["pack", "--list", str(folder / "train.list"), "--out", str(out), "--workers", "2", *flags])


def packed_paths(out, name="train"):
    return [out / line for line in (out / f"{name}.pkl.list").read_text(encoding="utf-8").splitlines()]


def test_all_frames_are_packed_in_the_originals_form(source, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_pack(source, out) == 0
    assert "packed 4, kept 0, bad 0" in capsys.readouterr().out
    paths = packed_paths(out)
    assert [path.name for path in paths][2:] == ["片.pkl", "d.pkl"]
    assert len({path.name for path in paths}) == 4
    clips = [load_clip_pickle(path.read_bytes()) for path in paths]
    assert [(name, label, len(jpegs)) for name, label, jpegs in clips] == [
        (path.stem, label, 20 + label) for label, path in enumerate(paths)
    ]
    for path, clip in zip(paths, clips):
        with open(path, "rb") as file:
            assert pickle.load(file, encoding="bytes") == clip


def test_the_pickle_is_one_that_python_2_can_read(source, tmp_path):
    run_pack(source, tmp_path / "out")
    data = (tmp_path / "out" / "d.pkl").read_bytes()
    codes = list(pickletools.genops(data))
    assert max(code.proto for code, _, _ in codes) == 2
    assert not any(code.name in ("GLOBAL", "BINBYTES", "SHORT_BINBYTES") for code, _, _ in codes)
    jpegs = load_clip_pickle(data)[2]
    assert len(data) < sum(map(len, jpegs)) + 1000


def test_a_packed_clip_is_sampled_as_a_pickle_and_shows_the_videos_frames(source, tmp_path):
    run_pack(source, tmp_path / "out", "--quality", "100")
    path = tmp_path / "out" / "d.pkl"  # 23 frames: 2 segments of 11

    def pick(n):
        return [i for segment in sample_frames(n, 2, 5, "pkl") for i in segment]

    frames, places, label = pickles.read_pickle(str(path), pick)
    assert label == 3
    assert pick(23) == [3, 4, 5, 6, 7, 14, 15, 16, 17, 18]  # i * 11 + (11 - 5) // 2
    original, _ = decode.read_video(str(source / "d.mp4"), lambda n: pick(23))
    assert frames[places].shape == (10, 48, 64, 3)
    decoded = [np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in load_clip_pickle(path.read_bytes())[2]]
    assert np.array_equal(frames[places], np.stack([decoded[i] for i in pick(23)]))
    luma = np.array([0.299, 0.587, 0.114])  # the JPEG halves the colours' resolution, not the brightness'
    assert np.abs((frames[places].astype(float) - original) @ luma).mean(axis=(1, 2)).max() < 3
    assert sample_frames(23, 2, 5, "pkl", random.Random(0))[1][0] in range(11, 18)


def test_the_short_side_is_scaled_and_the_aspect_kept(source, tmp_path):
    run_pack(source, tmp_path / "out", "--short_side", "24")
    frames, _, _ = pickles.read_pickle(str(tmp_path / "out" / "d.pkl"), lambda n: [0])
    assert frames.shape == (1, 24, 32, 3)


def test_quality_makes_larger_files(source, tmp_path):
    run_pack(source, tmp_path / "low", "--quality", "20")
    run_pack(source, tmp_path / "high", "--quality", "95")
    assert (tmp_path / "low" / "d.pkl").stat().st_size < (tmp_path / "high" / "d.pkl").stat().st_size / 2


def test_a_damaged_clip_is_packed_with_the_frames_that_the_reader_gives(videos, tmp_path):
    path = tmp_path / "cut.avi"
    path.write_bytes((videos / "mpeg4.avi").read_bytes()[:30000])
    whole, _ = decode.read_video(str(path), range)
    pack.pack_clip((Clip(str(path), 0), "cut.pkl"), str(tmp_path), short_side=None, quality=100)
    packed, _, _ = pickles.read_pickle(str(tmp_path / "cut.pkl"), range)
    assert packed.shape == whole.shape
    assert np.abs(packed.astype(float) - whole).mean() < 3


def test_a_second_run_keeps_what_is_whole_and_makes_what_changed(source, tmp_path, capsys):
    out = tmp_path / "out"
    run_pack(source, out)
    before = {path.name: path.stat().st_mtime_ns for path in packed_paths(out)}
    capsys.readouterr()
    run_pack(source, out)
    assert "packed 0, kept 4, bad 0" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in packed_paths(out)} == before
    (out / "d.pkl").write_bytes(b"half")
    write_video(source / "片.mp4", frames=30, size=(64, 48), seed=30)
    run_pack(source, out)
    assert "packed 2, kept 2, bad 0" in capsys.readouterr().out
    assert len(load_clip_pickle((out / "片.pkl").read_bytes())[2]) == 30
    run_pack(source, out, "--short_side", "24")
    assert "packed 4, kept 0, bad 0" in capsys.readouterr().out


def test_another_list_with_the_same_names_does_not_get_the_first_ones_pickles(source, tmp_path):
    out = tmp_path / "out"
    run_pack(source, out)
    (source / "val").mkdir()
    write_video(source / "val" / "d.mp4", frames=12)
    (source / "val" / "val.list").write_text("d.mp4 1\n")
    assert main(["pack", "--list", str(source / "val" / "val.list"), "--out", str(out)]) == 0
    (path,) = packed_paths(out, "val")
    assert path.name != "d.pkl"
    assert [len(load_clip_pickle(p.read_bytes())[2]) for p in (path, out / "d.pkl")] == [12, 23]


def test_bad_clips_are_named_counted_and_left_out(source, tmp_path, capsys):
    (source / "text.mp4").write_text("no video")
    with open(source / "train.list", "a", encoding="utf-8") as file:
        file.write("text.mp4 0\ngone.mp4 1\n")
    assert run_pack(source, tmp_path / "out") == 1
    printed = capsys.readouterr().out
    assert "text.mp4: no frame can be decoded" in printed
    assert "gone.mp4: no such file" in printed
    assert "packed 4, kept 0, bad 2" in printed
    assert len(packed_paths(tmp_path / "out")) == 4


def test_killed_in_the_middle_and_run_again_it_is_complete(tmp_path, capsys):
    for i in range(12):
        write_video(tmp_path / f"{i}.mp4", frames=60, size=(160, 120), seed=i)
    (tmp_path / "train.list").write_text("".join(f"{i}.mp4 {i % 4}\n" for i in range(12)))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tools.dataset", "pack", "--list", str(tmp_path / "train.list")]
    process = subprocess.Popen(
        [*command, "--out", str(out), "--workers", "1"], cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True
    )
    while process.poll() is None and len(list(out.glob("*.pkl"))) < 3:
        for path in out.glob("*.pkl"):
            assert len(load_clip_pickle(path.read_bytes())[2]) == 60
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    left = list(out.glob("*.pkl"))
    assert 3 <= len(left) < 12
    assert all(len(load_clip_pickle(path.read_bytes())[2]) == 60 for path in left)
    (out / ".5.pkl.writing-abc").write_bytes(b"half")
    assert run_pack(tmp_path, out) == 0
    assert "packed 12" not in capsys.readouterr().out
    assert [len(load_clip_pickle(path.read_bytes())[2]) for path in packed_paths(out)] == [60] * 12
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == []


def test_a_second_writer_is_refused(source, tmp_path):
    from stnet.utils.atomic import exclusive_lock

    (tmp_path / "out").mkdir()
    with exclusive_lock(str(tmp_path / "out")), pytest.raises(UserError, match="another run is writing into"):
        run_pack(source, tmp_path / "out")


def test_unpack_gives_numbered_images(source, tmp_path, capsys):
    run_pack(source, tmp_path / "out")
    images = tmp_path / "images"
    flags = ["unpack", "--list", str(tmp_path / "out" / "train.pkl.list"), "--out", str(images), "--workers", "1"]
    (images / ".d.unpacking").mkdir(parents=True)  # a run that was killed
    assert main(flags) == 0
    assert "unpacked 4, kept 0, bad 0" in capsys.readouterr().out
    names = sorted(path.name for path in (images / "d").iterdir())
    assert (names[0], names[-1], len(names)) == ("00000.jpg", "00022.jpg", 23)
    jpegs = load_clip_pickle((tmp_path / "out" / "d.pkl").read_bytes())[2]
    assert (images / "d" / "00007.jpg").read_bytes() == jpegs[7]
    assert not (images / ".d.unpacking").exists()
    assert main(flags) == 0
    assert "unpacked 0, kept 4, bad 0" in capsys.readouterr().out


def test_names_that_are_not_utf_8_are_packed_and_unpacked(source, tmp_path, capsys):
    os.rename(source / "d.mp4", os.fsencode(source) + b"/\xff d.mp4")
    (source / "train.list").write_bytes(b"\xff d.mp4\t3\n\xfe gone.mp4 1\n")
    command = ["pack", "--list", str(source / "train.list"), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert [cli.run(main, command), cli.run(main, command)] == [1, 1]  # it prints what cannot be encoded
    printed = capsys.readouterr().out
    assert "packed 1, kept 0, bad 1" in printed
    assert "packed 0, kept 1, bad 1" in printed
    packed_list = tmp_path / "out" / "train.pkl.list"
    assert packed_list.read_bytes() == b"\xff d.pkl\n"
    name, label, jpegs = load_clip_pickle(
        Path(os.fsdecode(os.fsencode(tmp_path / "out") + b"/\xff d.pkl")).read_bytes()
    )
    assert (label, len(jpegs)) == (3, 23)
    flags = ["unpack", "--list", str(packed_list), "--out", str(tmp_path / "images"), "--workers", "1"]
    assert main(flags) == 0
    assert len(os.listdir(os.fsencode(tmp_path / "images") + b"/\xff d")) == 23


def test_unpack_names_what_is_no_pickle(source, tmp_path, capsys):
    (source / "pkl.list").write_text("d.mp4\n")
    assert main(["unpack", "--list", str(source / "pkl.list"), "--out", str(tmp_path / "images")]) == 1
    assert "not a usable pickle" in capsys.readouterr().out
    assert list((tmp_path / "images").iterdir()) == []


def sheet_flags(folder, *flags):
    write_config(folder / "tiny.yaml", tiny_settings(folder))
    return [
        "show",
        str(folder / "d.mp4"),
        "--config",
        str(folder / "tiny.yaml"),
        "--out",
        str(folder / "s.png"),
        *flags,
    ]


def test_show_draws_a_row_a_segment_before_and_after(source):
    assert main(sheet_flags(source, "--tile", "32")) == 0
    sheet = Image.open(source / "s.png")
    assert sheet.format == "PNG"
    # test: 3 segments of 2 frames; train: 2 segments of 2 frames
    assert sheet.size == (4 + 2 * (32 + 4), 20 + 3 * (32 + 14 + 4) + 20 + 2 * (32 + 14 + 4))


def test_the_tiles_are_what_the_reader_gives(source):
    from stnet.config import load_config
    from stnet.models import model_section
    from stnet.reader.dataset import VideoListDataset

    main(sheet_flags(source, "--tile", "32", "--seed", "5"))
    sheet = np.asarray(Image.open(source / "s.png"))
    config = load_config(source / "tiny.yaml", model_section)
    clips = [Clip(str(source / "d.mp4"), 0)]
    after_top = 20 + 3 * 50
    for mode, top in (("test", 0), ("train", after_top)):
        clip, _ = VideoListDataset(clips, config.section(mode), augment=mode == "train", seed=5).read(0)
        row, column = 1, 1
        y, x = top + 20 + row * 50, 4 + column * 36
        assert np.array_equal(sheet[y : y + 32, x : x + 32], clip[row, 3:6].transpose(1, 2, 0))


def test_show_of_another_seed_is_another_sheet_and_of_the_same_the_same(source):
    sheets = []
    for seed in ("1", "1", "2"):
        main(sheet_flags(source, "--seed", seed))
        sheets.append((source / "s.png").read_bytes())
    assert sheets[0] == sheets[1] != sheets[2]


def test_times_follow_the_stamps(source, tiny_config):
    block = show.read_block(Clip(str(source / "d.mp4"), -1, "mp4"), tiny_config.section("test"), "")
    assert len(block.seconds) == 23
    assert block.seconds == pytest.approx([i / 12 for i in range(23)], abs=1e-3)


def test_show_of_a_bad_clip_is_a_readable_error(source):
    (source / "d.mp4").write_bytes(b"")
    with pytest.raises(UserError, match="d.mp4: the file is empty"):
        main(sheet_flags(source))


def test_help_needs_neither_paddle_nor_decord():
    code = (
        "import sys, tools.dataset.check, tools.dataset.pack, tools.dataset.show\n"
        "import json; print(json.dumps([m for m in ('paddle', 'decord', 'cv2') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
