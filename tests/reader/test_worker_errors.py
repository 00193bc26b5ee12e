import os
import signal
import time

import pytest

from stnet.reader.loader import build_loader
from stnet.utils.errors import UserError


def test_a_killed_worker_is_a_users_error_whatever_the_program_does_then(tiny_config):
    loader = build_loader(tiny_config, "valid")
    stream = loader.start()
    (worker,) = (worker.pid for worker in stream.iterator._workers)
    next(stream)  # it runs
    with pytest.raises(UserError, match="^a reading process was killed, perhaps for lack of memory: fewer num_reader"):
        os.kill(worker, signal.SIGKILL)
        time.sleep(30)  # as a long step would: nothing is asked of the loader
    loader.close()


def test_an_unknown_decoder_is_said_before_anything_is_read(tiny_config, monkeypatch):
    monkeypatch.setenv("STNET_DECODER", "vlc")
    with pytest.raises(UserError, match="STNET_DECODER is 'vlc'; expected one of decord, pyav, opencv, or nothing"):
        build_loader(tiny_config, "valid")
