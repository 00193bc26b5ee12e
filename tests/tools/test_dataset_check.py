import json
import os
import shutil
import subprocess
import time
import wave

import numpy as np
import pytest
from conftest import tiny_settings, write_config, write_video

from stnet.config import load_config
from stnet.models import model_section
from stnet.reader.lists import read_list
from stnet.reader.loader import BadClips
from stnet.tools.dataset import check
from stnet.tools.dataset.__main__ import main
from stnet.utils.errors import UserError


def write_audio(path):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(8000))


@pytest.fixture
def tree(tmp_path, videos):
    """Three fine clips, and one of each problem."""
    folder = tmp_path / "my 视频"
    (folder / "über class").mkdir(parents=True)
    for i, name in enumerate(["a.mp4", "über class/b c.mp4", "jo's 片.mp4"]):
        write_video(folder / name, seed=i)
    write_video(folder / "label.mp4", seed=8)
    write_video(folder / "three.mp4", frames=3, seed=9)
    shutil.copy(folder / "a.mp4", folder / "copy of a.mp4")
    whole = (folder / "a.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "cut.avi").write_bytes((videos / "mpeg4.avi").read_bytes()[:30000])
    (folder / "zero.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("no video " * 99)
    write_audio(folder / "audio.mp4")
    lines = ["# clips", "", "a.mp4 0", "über class/b c.mp4 1", "jo's 片.mp4 3", "copy of a.mp4 0", "cut.mp4 0"]
    lines += ["cut.avi 1", "zero.mp4 2", "text.mp4 1", "audio.mp4 1", "gone.mp4 1", "label.mp4 4", "three.mp4 2"]
    (folder / "train.list").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_config(folder / "tiny.yaml", tiny_settings(folder))
    return folder


def run_check(folder, *flags):
    code = main(["check", "--list", str(folder / "train.list"), "--config", str(folder / "tiny.yaml"), *flags])
    return code, json.loads((folder / "report.json").read_text(encoding="utf-8"))


def clean_folder(tmp_path, count=3):
    for i in range(count):
        write_video(tmp_path / f"{i}.mp4", seed=i)
    (tmp_path / "train.list").write_text("".join(f"{i}.mp4 {i % 4}\n" for i in range(count)))
    write_config(tmp_path / "tiny.yaml", tiny_settings(tmp_path))
    return tmp_path


def test_every_problem_is_counted_once(tree, capsys):
    code, report = run_check(tree)
    assert code == 1
    assert report["problems"] == {
        "missing": 1,
        "empty": 1,
        "no_video_stream": 1,
        "undecodable": 2,
        "short_of_header": 1,
        "duplicate": 1,
        "label": 1,
        "hang": 0,
        "crash": 0,
    }
    assert report["notes"]["short_clip"] == 1
    assert (report["clips"], report["fine"], report["bad"]) == (12, 4, 8)
    assert report["looked_at"] == 10  # all but the missing and the empty one
    found = {finding["path"]: (finding["line"], finding["problem"]) for finding in report["findings"]}
    assert found["copy of a.mp4"] == (6, "duplicate")
    assert found["label.mp4"] == (13, "label")
    assert found["three.mp4"] == (14, "short_clip")
    assert "duplicate              1  the content of a clip further up" in capsys.readouterr().out


def test_the_clean_list_holds_the_fine_lines_and_the_loader_reads_the_quarantine(tree):
    run_check(tree)
    fine = ["a.mp4 0", "über class/b c.mp4 1", "jo's 片.mp4 3", "three.mp4 2"]
    assert (tree / "train.clean.list").read_text(encoding="utf-8").splitlines() == fine
    clips = read_list(str(tree / "train.list"))
    skipped = BadClips(clips, 1.0, str(tree / "train.quarantine.list")).quarantined()
    assert sorted(skipped) == [3, 4, 5, 6, 7, 8, 9, 10]
    assert skipped[6] == "in quarantine: empty: 0 bytes"


def test_a_clean_list_elsewhere_still_finds_its_clips(tree, tmp_path):
    flags = ["check", "--list", str(tree / "train.list"), "--config", str(tree / "tiny.yaml")]
    assert main([*flags, "--out", str(tmp_path / "out")]) == 1
    clips = read_list(str(tmp_path / "out" / "train.clean.list"))
    assert [clip.path for clip in clips][1] == str(tree / "über class" / "b c.mp4")


def test_a_clip_of_which_packets_are_lost_is_noted_and_stays(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    folder = clean_folder(tmp_path)
    words = ["-loglevel", "error", "-f", "lavfi", "-i", "testsrc2=s=64x48:r=25", "-frames:v", "30"]
    subprocess.run([ffmpeg, *words, "-bf", "0", folder / "whole.mp4"], check=True)
    words = ["-loglevel", "error", "-i", folder / "whole.mp4", "-c", "copy", "-bsf:v", "noise=drop='eq(n,9)'"]
    subprocess.run([ffmpeg, *words, folder / "lost.mp4"], check=True)
    (folder / "train.list").write_text("0.mp4 0\nwhole.mp4 1\nlost.mp4 2\n")
    code, report = run_check(folder)
    assert (code, report["bad"], report["notes"]["lost_packets"]) == (0, 0, 1)
    assert ["lost.mp4", "lost_packets"] in [[found["path"], found["problem"]] for found in report["findings"]]
    assert "lost.mp4 2" in (folder / "train.clean.list").read_text()


def test_a_second_run_looks_at_nothing_and_finds_the_same(tree):
    _, first = run_check(tree)
    _, second = run_check(tree)
    assert second["looked_at"] == 0
    assert second["findings"] == first["findings"]


def test_only_what_is_new_or_changed_is_looked_at_again(tree):
    run_check(tree)
    write_video(tree / "gone.mp4", seed=20)
    write_video(tree / "text.mp4", frames=13, seed=21)
    with open(tree / "train.list", "a", encoding="utf-8") as file:
        file.write("new.mp4 2\n")
    write_video(tree / "new.mp4", seed=22)
    with open(tree / "train.checked.jsonl", "a") as file:
        file.write('{"file": "half a li')
    _, report = run_check(tree)
    assert report["looked_at"] == 3
    assert (report["fine"], report["bad"]) == (7, 6)
    assert run_check(tree)[1]["looked_at"] == 0


def test_other_sampling_looks_at_everything_again(tmp_path):
    folder = clean_folder(tmp_path)
    assert run_check(folder)[1]["looked_at"] == 3
    assert run_check(folder, "--mode", "test")[1]["looked_at"] == 3
    assert run_check(folder, "-o", "MODEL.seglen=3")[1]["looked_at"] == 3
    assert run_check(folder)[1]["looked_at"] == 0


def test_a_list_without_fault_gives_exit_code_0(tmp_path):
    code, report = run_check(clean_folder(tmp_path))
    assert (code, report["fine"], report["findings"]) == (0, 3, [])


def test_labels_of_every_wrong_kind_are_reported_and_do_not_stop_the_check(tmp_path):
    folder = clean_folder(tmp_path, 4)
    (folder / "train.list").write_text("0.mp4\n1.mp4 one\n2.mp4 -1\n3.mp4 3\n")
    code, report = run_check(folder)
    assert code == 1
    assert [(f["path"], f["problem"]) for f in report["findings"]] == [(f"{i}.mp4", "label") for i in range(3)]
    assert report["looked_at"] == 4


def test_a_path_listed_twice_is_a_duplicate_but_not_in_quarantine(tmp_path):
    folder = clean_folder(tmp_path)
    with open(folder / "train.list", "a") as file:
        file.write("0.mp4 0\n")
    _, report = run_check(folder)
    assert report["problems"]["duplicate"] == 1
    assert (folder / "train.quarantine.list").read_text() == ""
    assert len(read_list(str(folder / "train.clean.list"))) == 3


@pytest.fixture
def two_lists(tmp_path):
    """A training list of three clips, and a validation list of two of these under other names and one of its own."""
    folder = clean_folder(tmp_path)
    shutil.copy(folder / "1.mp4", folder / "other name.mp4")
    write_video(folder / "own.mp4", seed=9)
    (folder / "val.list").write_text("own.mp4 0\nother name.mp4 1\n2.mp4 2\n")
    settings = tiny_settings(folder)
    settings["TRAIN"]["filelist"] = str(folder / "train.list")
    write_config(folder / "tiny.yaml", settings)
    return folder


def check_list(folder, name, *flags):
    code = main(["check", f"--list={folder}/{name}", f"--config={folder}/tiny.yaml", *flags])
    return code, json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_training_clips_in_a_validation_list_are_named_under_whatever_name(two_lists, capsys):
    code, report = check_list(two_lists, "val.list", "--mode=valid")
    train = two_lists / "train.list"
    assert (code, report["fine"]) == (0, 3)
    assert [(f["line"], f["problem"], f["reason"]) for f in report["findings"]] == [
        (2, "leak", f"same content as line 2 of {train}: 1.mp4"),
        (3, "leak", f"same content as line 3 of {train}: 2.mp4"),
    ]
    assert report["against"] == [str(train)]
    assert f"compared with {train}: 2 clips hold the same content" in capsys.readouterr().out
    assert check_list(two_lists, "val.list", "--mode=valid")[1]["notes"]["leak"] == 2  # from what is known of files


def test_lists_are_compared_where_that_says_something(two_lists):
    assert check_list(two_lists, "train.list")[1]["against"] == []
    assert check_list(two_lists, "train.list", "--mode=test")[1]["against"] == []  # the same list
    assert check_list(two_lists, "val.list", "--mode=infer")[1]["against"] == []
    assert check_list(two_lists, "val.list", "--mode=test", "-o", "TRAIN.filelist=none")[1]["notes"]["leak"] == 0
    code, report = check_list(two_lists, "train.list", f"--against={two_lists}/val.list")
    assert (code, report["notes"]["leak"], report["fine"]) == (0, 2, 3)
    with pytest.raises(UserError, match="list file not found: none.list"):
        check_list(two_lists, "val.list", "--against=none.list")


def test_a_clip_that_hangs_is_killed_and_costs_only_itself(tmp_path, monkeypatch):
    folder = clean_folder(tmp_path, 6)
    real = check.read_clip

    def hanging(path, *settings):
        if path.endswith("2.mp4"):
            time.sleep(60)
        return real(path, *settings)

    monkeypatch.setattr(check, "read_clip", hanging)
    started = time.monotonic()
    code, report = run_check(folder, "--timeout", "1.5", "--workers", "2")
    assert time.monotonic() - started < 20
    assert code == 1
    assert [(f["path"], f["problem"]) for f in report["findings"]] == [("2.mp4", "hang")]
    assert report["looked_at"] == 6
    assert run_check(folder, "--timeout", "1.5")[1]["looked_at"] == 0
    monkeypatch.setattr(check, "read_clip", real)
    code, report = run_check(folder, "--timeout", "30")  # more time: another try
    assert (code, report["looked_at"]) == (0, 1)


def test_a_decoder_that_crashes_costs_one_clip_even_in_a_chunk(tmp_path, monkeypatch):
    folder = clean_folder(tmp_path, 4)
    lines = [(folder / f"{i}.mp4", i % 4) for i in range(4)]
    for i in range(4, 40):
        shutil.copy(folder / "0.mp4", folder / f"{i}.mp4")
        lines.append((folder / f"{i}.mp4", 0))
    (folder / "train.list").write_text("".join(f"{path} {label}\n" for path, label in lines))
    real = check.read_clip

    def crashing(path, *settings):
        if path.endswith(("/1.mp4", "/30.mp4")):
            os.kill(os.getpid(), 11)
        return real(path, *settings)

    monkeypatch.setattr(check, "read_clip", crashing)
    _, report = run_check(folder, "--workers", "1")
    assert report["problems"]["crash"] == 2
    assert report["problems"]["duplicate"] == 35
    assert "SIGSEGV" in report["findings"][0]["reason"]


def test_a_bug_in_the_check_is_not_taken_for_a_bad_clip(tmp_path, monkeypatch):
    folder = clean_folder(tmp_path)

    def wrong(*settings):
        raise KeyError("a bug")

    monkeypatch.setattr(check, "read_clip", wrong)
    with pytest.raises(RuntimeError, match="KeyError: 'a bug'"):
        run_check(folder)


def test_pickled_clips_are_checked_with_the_label_inside(tmp_path, videos):
    data = (videos / "clip_jpeg.pkl").read_bytes()
    (tmp_path / "good.pkl").write_bytes(data)
    (tmp_path / "bad.pkl").write_bytes(data[:1000])
    (tmp_path / "train.list").write_text("good.pkl\nbad.pkl\n")
    write_config(tmp_path / "tiny.yaml", tiny_settings(tmp_path))
    code, report = run_check(tmp_path, "-o", "MODEL.format=pkl")
    assert code == 1
    assert [(f["path"], f["problem"]) for f in report["findings"]] == [("bad.pkl", "undecodable")]
    _, report = run_check(tmp_path, "-o", "MODEL.format=pkl", "-o", "MODEL.num_classes=3")
    assert report["problems"]["label"] == 1
    assert report["looked_at"] == 0


def test_clips_are_those_of_the_reader(tmp_path, monkeypatch):
    from stnet.config import load_config
    from stnet.models import model_section
    from stnet.reader import dataset as kinetics

    folder = clean_folder(tmp_path)
    clips = []
    real = check.read_clip
    for module in (check, kinetics):
        monkeypatch.setattr(module, "read_clip", lambda *settings: clips.append(real(*settings)) or clips[-1])
    section = load_config(folder / "tiny.yaml", model_section).section("train")
    listed = read_list(str(folder / "train.list"))
    dataset = kinetics.VideoListDataset(listed, section, augment=True, folder=str(folder))
    for index, clip in enumerate(listed):
        dataset.read(index)
        check.examine((str(folder / clip.path), index, None), check.Reading(section, "mp4", True))
    assert len(clips) == 6
    for ours, checked in zip(clips[0::2], clips[1::2]):
        assert ours.segments == checked.segments
        assert np.array_equal(ours.frames, checked.frames)


def test_names_that_are_not_utf_8_are_checked_and_kept_as_they_are(tmp_path):
    folder = clean_folder(tmp_path)
    os.rename(folder / "1.mp4", os.fsencode(folder) + b"/\xff 1.mp4")
    listed = b"0.mp4 0\n\xff 1.mp4\t1\n2.mp4 2\n\xfe gone.mp4 1\n"
    (folder / "train.list").write_bytes(listed)
    code, report = run_check(folder)
    assert (code, report["fine"], report["looked_at"]) == (1, 3, 3)
    assert report["findings"][0]["path"] == "\udcfe gone.mp4"
    assert (folder / "train.clean.list").read_bytes() == listed[: listed.index(b"\xfe")]
    quarantined = (folder / "train.quarantine.list").read_bytes()
    assert quarantined == b"\xfe gone.mp4\tmissing: No such file or directory\n"
    assert run_check(folder)[1]["looked_at"] == 0


def test_the_path_of_a_line_with_a_wrong_label_is_found_behind_blanks_and_tabs(tmp_path):
    folder = clean_folder(tmp_path)
    os.rename(folder / "0.mp4", folder / "my clip (0).mp4")
    (folder / "train.list").write_text("my clip (0).mp4\tone\n1.mp4\t1\n")
    _, report = run_check(folder)
    assert [(f["path"], f["problem"]) for f in report["findings"]] == [("my clip (0).mp4", "label")]


def test_an_empty_or_missing_list_is_a_readable_error(tmp_path):
    write_config(tmp_path / "tiny.yaml", tiny_settings(tmp_path))
    with pytest.raises(UserError, match="list file not found"):
        run_check(tmp_path)
    (tmp_path / "train.list").write_text("# nothing\n")
    with pytest.raises(UserError, match="is empty: expected one clip a line"):
        run_check(tmp_path)


def test_a_clip_that_only_opencv_survives_is_fine_and_noted(tmp_path, monkeypatch):
    folder = clean_folder(tmp_path)
    real = check.read_clip

    def crashing(path, section, format, rng, decoder, span):
        if path.endswith("/1.mp4") and decoder != "opencv":
            os.kill(os.getpid(), 11)
        return real(path, section, format, rng, decoder, span)

    monkeypatch.setattr(check, "read_clip", crashing)
    code, report = run_check(folder)
    assert (code, report["fine"], report["notes"]["decoder_lost"]) == (0, 3, 1)
    assert (report["decoders"].pop("opencv in order"), sum(report["decoders"].values())) == (1, 2)


def test_a_matroska_file_cut_in_the_middle_is_short_of_its_header(tmp_path):
    import av

    with av.open(str(tmp_path / "whole.mkv"), "w") as file:
        stream = file.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for i in range(50):
            image = np.full((48, 64, 3), 5 * i, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())
    data = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) * 6 // 10])
    (tmp_path / "train.list").write_text("whole.mkv 0\ncut.mkv 1\n")
    write_config(tmp_path / "tiny.yaml", tiny_settings(tmp_path))
    _, report = run_check(tmp_path)
    assert [(f["path"], f["problem"]) for f in report["findings"] if f["problem"] == "short_of_header"] == [
        ("cut.mkv", "short_of_header")
    ]


def write_with_sound(path, codec, sound, seconds=6):
    """Two seconds of video, and a tone that is longer."""
    import av

    with av.open(str(path), "w") as file:
        stream, tone = file.add_stream(codec, rate=25), file.add_stream(sound, rate=48000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        noise = np.random.RandomState(0).randint(0, 256, (48, 64, 3), np.uint8)
        for block in range(int(25 * seconds)):
            if block < 50:
                frame = av.VideoFrame.from_ndarray(np.roll(noise, block, axis=1), format="rgb24")
                file.mux(stream.encode(frame))
            wave = av.AudioFrame(format="s16", layout="stereo", samples=1920)
            wave.sample_rate, wave.pts = 48000, 1920 * block
            for plane in wave.planes:
                plane.update(bytes(plane.buffer_size))
            file.mux(tone.encode(wave))
        file.mux(stream.encode())
        file.mux(tone.encode())


def test_a_video_that_is_shorter_than_its_sound_is_not_short_of_its_header(tmp_path):
    from stnet.reader.windows import WindowReader

    write_with_sound(tmp_path / "a.mkv", "libx264", "aac")
    write_with_sound(tmp_path / "b.webm", "libvpx", "libopus")
    write_with_sound(tmp_path / "c.flv", "libx264", "aac")  # its header has the duration of the whole alone
    write_with_sound(tmp_path / "d.asf", "mpeg4", "aac")
    data = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "untagged.mkv").write_bytes(data.replace(b"DURATION", b"OTHERTAG"))
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 4])
    (tmp_path / "untagged_cut.mkv").write_bytes(data.replace(b"DURATION", b"OTHERTAG")[: len(data) // 4])
    names = ["a.mkv", "b.webm", "c.flv", "d.asf", "untagged.mkv", "cut.mkv", "untagged_cut.mkv"]
    (tmp_path / "train.list").write_text("".join(f"{name} 0\n" for name in names))
    config = write_config(tmp_path / "tiny.yaml", tiny_settings(tmp_path))
    _, report = run_check(tmp_path)
    found = [(finding["path"], finding["problem"]) for finding in report["findings"] if finding["problem"]]
    assert found == [(n, "short_of_header") for n in names[5:]]
    section = load_config(config, model_section).section("train")
    for name in names:
        answers = WindowReader(str(tmp_path / name), section, 1.0, 1.0)
        *_, last = iter(lambda answers=answers: answers(0), None)
        assert (last.last.declared > last.last.end + 1) == ("cut" in name), name


def test_a_header_that_counts_four_times_as_many_frames_loses_none(tmp_path):
    import av

    with av.open(str(tmp_path / "x.avi"), "w") as file:
        stream = file.add_stream("mjpeg", rate=100)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for i in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 9 * i, np.uint8), format="rgb24")
            frame.pts = 4 * i  # the header counts the places in between, too
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    (tmp_path / "train.list").write_text("x.avi 0\n")
    write_config(tmp_path / "tiny.yaml", tiny_settings(tmp_path))
    code, report = run_check(tmp_path)
    assert (code, report["fine"]) == (0, 1)
    assert report["notes"]["header_count"] == 1


def test_the_screen_shows_counts_and_a_few_examples_and_the_report_holds_all(tmp_path, capsys, caplog):
    folder = clean_folder(tmp_path)
    with open(folder / "train.list", "a") as file:
        file.writelines(f"none {i}.mp4 0\n" for i in range(60))
    with caplog.at_level("INFO"):
        _, report = run_check(folder)
    assert report["problems"]["missing"] == len(report["findings"]) == 60
    assert capsys.readouterr().out.splitlines()[:6] == [
        f"{'missing':<16}{60:>8}  no such file",
        "    line 4: none 0.mp4: No such file or directory",
        "    line 5: none 1.mp4: No such file or directory",
        "    line 6: none 2.mp4: No such file or directory",
        "    and 57 more",
        f"{'fine':<16}{3:>8}  of 63 clips",
    ]
    assert len(caplog.records) == 1  # the progress of three clips that were decoded
    assert "check 3/3 clips" in caplog.text


def test_a_folder_that_cannot_be_written_is_said_with_the_flag_of_this_command(tmp_path):
    from stnet.cli import advised

    folder = clean_folder(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as refusal:
        main(["check", "--list", f"{folder}/train.list", "--config", f"{folder}/tiny.yaml", f"--out={tmp_path}/file/x"])
    assert advised(refusal.value) == f"cannot write into {tmp_path}/file/x: Not a directory; set --out"
