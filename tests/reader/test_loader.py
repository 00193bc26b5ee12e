import gc
import os

import numpy as np
import pytest
from conftest import write_video

from stnet.config import load_config
from stnet.models import model_section
from stnet.reader.lists import Clip
from stnet.reader.loader import BadClips, EpochOrder, build_loader
from stnet.utils.errors import UserError


def epoch_indices(order, epoch):
    return [[index for _, index in batch] for batch in order.batches(epoch)]


@pytest.mark.parametrize(
    ("clips", "batch", "ranks"), [(10, 4, 1), (10, 4, 2), (103, 16, 4), (9, 8, 2), (8, 8, 8), (17, 8, 2)]
)
def test_each_clip_is_read_in_an_epoch_over_all_ranks_and_evaluated_once(clips, batch, ranks):
    for shuffle in (True, False):
        orders = [EpochOrder(clips, batch, shuffle, seed=3, rank=rank, ranks=ranks) for rank in range(ranks)]
        seen = [i for order in orders for b in epoch_indices(order, 2) for i in b]
        assert set(seen) == set(range(clips))
        assert len(seen) == (-(-clips // batch) * batch if shuffle else clips)
        assert [len(order) for order in orders] == [len(order.batches(2)) for order in orders]
        if shuffle:  # every rank takes the same number of steps, none of them without a clip
            assert len({len(order) for order in orders}) == 1
            assert all(batch for order in orders for batch in order.batches(2))


@pytest.mark.parametrize(("clips", "ranks", "of_rank"), [(81, 1, 8), (81, 4, 2), (84, 4, 2), (85, 4, 2), (87, 2, 4)])
def test_the_last_training_batch_is_filled_up_with_the_epochs_first_clips(clips, ranks, of_rank):
    batches = [EpochOrder(clips, 8, True, seed=3, rank=rank, ranks=ranks).batches(1) for rank in range(ranks)]
    assert {len(batch) for of_one in batches for batch in of_one} == {of_rank}  # no rank has a single clip
    assert {len(of_one) for of_one in batches} == {11}
    together = [place for of_ranks in zip(*batches) for clip in zip(*of_ranks) for place in clip]
    assert sorted(together[:clips]) == [(1, i) for i in range(clips)]
    assert together[clips:] == together[: 88 - clips]
    order = EpochOrder(clips, 8, True, seed=3)
    assert order.starts() == list(range(0, 88, 8))
    assert order.batches(2)[-1][clips - 80 :] != order.batches(1)[-1][clips - 80 :]


def test_a_list_shorter_than_a_batch_is_one_smaller_batch():
    assert [sorted(batch) for batch in epoch_indices(EpochOrder(5, 8, True), 0)] == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize(("batch_size", "ranks", "sync_bn", "warned"),
                         [(1, 1, "off", True), (2, 1, "off", False), (3, 2, "off", True), (3, 2, "on", False),
                          (4, 2, "off", False)])  # fmt: skip
def test_batches_of_one_clip_are_warned_of(clip_set, caplog, batch_size, ranks, sync_bn, warned):
    overrides = [f"TRAIN.batch_size={batch_size}", f"TRAIN.sync_bn={sync_bn}"]
    build_loader(load_config(clip_set / "tiny.yaml", model_section, overrides), "train", 0, ranks)
    assert ("batch norm takes its statistics from one clip" in caplog.text) == warned


def test_training_order_depends_on_seed_and_epoch_alone():
    order = EpochOrder(50, 8, True, seed=1)
    assert epoch_indices(order, 0) == epoch_indices(EpochOrder(50, 8, True, seed=1), 0)
    assert epoch_indices(order, 0) != epoch_indices(order, 1)
    assert epoch_indices(order, 0) != epoch_indices(EpochOrder(50, 8, True, seed=2), 0)


def test_evaluation_keeps_the_order_of_the_list():
    assert epoch_indices(EpochOrder(5, 2, False), 0) == [[0, 1], [2, 3], [4]]


def test_evaluation_computes_the_same_batches_on_any_number_of_ranks():
    alone = epoch_indices(EpochOrder(100, 64, False), 0)
    assert [len(batch) for batch in alone] == [16] * 6 + [4]
    dealt = [b for rank in range(3) for b in epoch_indices(EpochOrder(100, 64, False, rank=rank, ranks=3), 0)]
    assert sorted(dealt) == alone


def clips_of(loader, epoch):
    found = {}
    for batch in loader.epoch(epoch):
        for index, clip, label in zip(batch.indices, batch.clips.numpy(), batch.labels.numpy()):
            found[index] = (clip, int(label))
    return found


def test_the_last_incomplete_batch_is_not_dropped(tiny_config):
    found = clips_of(build_loader(tiny_config, "valid"), 0)
    assert {i: label for i, (_, label) in found.items()} == {0: 0, 1: 1, 2: 2, 3: 3, 4: 0, 5: 1}
    assert found[0][0].shape == (2, 6, 32, 32)
    assert found[0][0].dtype == np.uint8


def test_augmentation_depends_on_seed_epoch_and_clip_not_on_workers(tiny_config):
    loader = build_loader(tiny_config, "train", seed=5)
    with_worker = clips_of(loader, 1)
    tiny_config.TRAIN.num_reader_threads = 0
    in_process = clips_of(build_loader(tiny_config, "train", seed=5), 1)
    other_epoch = clips_of(loader, 2)
    assert all(np.array_equal(with_worker[i][0], in_process[i][0]) for i in range(10))
    assert any(not np.array_equal(with_worker[i][0], other_epoch[i][0]) for i in range(10))


def test_test_mode_has_its_own_seg_num(tiny_config):
    assert clips_of(build_loader(tiny_config, "test"), 0)[0][0].shape == (3, 6, 32, 32)


@pytest.fixture
def mixed(tmp_path, clip_set):
    """A list of three good and two bad clips."""
    write_video(tmp_path / "good.mp4")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "val.list").write_text("good.mp4 0\nempty.mp4 1\ngood.mp4 2\nnone.mp4 3\ngood.mp4 1\n")

    def load(max_bad_ratio):
        override = [f"VALID.filelist={tmp_path}/val.list", f"VALID.max_bad_ratio={max_bad_ratio}"]
        return build_loader(load_config(clip_set / "tiny.yaml", model_section, override), "valid")

    return load


def test_bad_clips_are_named_once_counted_and_never_replaced(mixed, caplog):
    loader = mixed(0.5)
    for epoch in range(2):
        assert sorted(clips_of(loader, epoch)) == [0, 2, 4]
    messages = [record.message for record in caplog.records]
    assert messages == ["skipped empty.mp4: the file is empty (0 bytes)", "skipped none.mp4: no such file"]
    assert loader.bad.summary() == [
        {"path": "empty.mp4", "reason": "the file is empty (0 bytes)"},
        {"path": "none.mp4", "reason": "no such file"},
    ]


def test_too_many_bad_clips_stop_the_run(mixed):
    with pytest.raises(UserError, match="2 of the 5 clips in the list cannot be read, more than max_bad_ratio"):
        clips_of(mixed(0.3), 0)


def test_one_bad_clip_of_a_few_does_not_stop_the_run_unless_none_may_be_bad(tmp_path, clip_set):
    (tmp_path / "val.list").write_text(f"{clip_set}/val 0.mp4 0\nnone.mp4 1\n")

    def read(ratio):
        override = [f"VALID.filelist={tmp_path}/val.list", f"VALID.max_bad_ratio={ratio}"]
        loader = build_loader(load_config(clip_set / "tiny.yaml", model_section, override), "valid")
        return [sorted(clips_of(loader, epoch)) for epoch in range(3)]

    assert read(0.1) == [[0], [0], [0]]
    with pytest.raises(UserError, match="1 of the 2 clips in the list cannot be read, more than max_bad_ratio"):
        read(0)


def test_the_quarantine_keeps_file_names_that_are_not_utf_8(tmp_path):
    clips = [Clip(os.fsdecode(b"caf\xe9.mp4"), 0), Clip("b.mp4", 1)]
    path = str(tmp_path / "quarantine.list")
    BadClips(clips, 1.0, path).add(0, "it hung", quarantine=True)
    assert (tmp_path / "quarantine.list").read_bytes() == b"caf\xe9.mp4\tit hung\n"
    assert BadClips(clips, 1.0, path).quarantined() == {0: "in quarantine: it hung"}


def test_nothing_readable_stops_the_run(tmp_path, clip_set):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "val.list").write_text("empty.mp4 1\n" * 9)
    override = [f"VALID.filelist={tmp_path}/val.list", "VALID.max_bad_ratio=1"]
    loader = build_loader(load_config(clip_set / "tiny.yaml", model_section, override), "valid")
    with pytest.raises(UserError, match="no clip could be read; the first: empty.mp4: the file is empty"):
        clips_of(loader, 0)


def test_a_label_inside_a_pickle_is_checked(videos, tmp_path, clip_set):
    (tmp_path / "val.list").write_text(f"{videos}/clip_jpeg.pkl\n")
    for classes, found in ((4, 1), (3, 0)):
        override = [f"VALID.filelist={tmp_path}/val.list", "MODEL.format=pkl", f"MODEL.num_classes={classes}"]
        loader = build_loader(load_config(clip_set / "tiny.yaml", model_section, override), "valid")
        if found:
            assert clips_of(loader, 0)[0][1] == 3
        else:
            with pytest.raises(UserError, match="label 3 is outside 0..2"):
                clips_of(loader, 0)


def workers_of(loader):
    return [worker.pid for worker in loader.stream.iterator._workers]


def test_training_keeps_its_workers_and_reads_the_same_as_epoch_by_epoch(tiny_config):
    tiny_config.TRAIN.epoch = 3
    loader = build_loader(tiny_config, "train", seed=5)
    found = [clips_of(loader, 0)]
    workers = workers_of(loader)
    found.append(clips_of(loader, 1))
    assert workers_of(loader) == workers
    found.append(clips_of(loader, 2))
    assert loader.stream is None  # after the last epoch
    for epoch, clips in enumerate(found):
        alone = clips_of(build_loader(tiny_config, "train", seed=5), epoch)
        assert clips.keys() == alone.keys()
        assert all(np.array_equal(clips[i][0], alone[i][0]) for i in clips)


def test_another_place_or_seed_is_not_read_from_what_runs(tiny_config):
    tiny_config.TRAIN.epoch = 9
    loader = build_loader(tiny_config, "train", seed=5)
    clips_of(loader, 0)
    expected = [batch.indices for batch in loader.epoch(4)][1:]
    assert [batch.indices for batch in loader.epoch(4, 1)] == expected
    loader.set_seed(6)
    other = [batch.indices for batch in loader.epoch(5)]
    assert other == epoch_indices(EpochOrder(10, 4, True, seed=6), 5)
    loader.close()


def test_a_loader_started_early_gives_the_same_and_one_given_up_leaves_no_process(tiny_config):
    loader = build_loader(tiny_config, "valid")
    loader.start()
    (early,) = workers_of(loader)
    assert sorted(clips_of(loader, 0)) == [0, 1, 2, 3, 4, 5]
    loader.start()
    (late,) = workers_of(loader)
    del loader
    gc.collect()
    for pid in (early, late):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_clip_that_killed_its_reader_is_not_read_again_by_workers_that_stay(tiny_config):
    tiny_config.TRAIN.epoch, tiny_config.TRAIN.max_bad_ratio = 2, 1.0
    loader = build_loader(tiny_config, "train", seed=5)
    clips_of(loader, 0)
    loader.dataset.skip[3] = "hung before"  # what the first epoch might have found
    loader.place, stream = (1, 0), loader.stream
    first = clips_of(loader, 1)
    assert stream.iterator is not None
    ahead = 2  # batches asked for before
    late = {i for batch in epoch_indices(loader.order, 1)[ahead:] for i in batch}
    assert (3 not in first) == (3 in late)
