"""What Predictor takes: videos by path, folder, glob or list, as bytes, or as frames."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from typing import Union

import numpy as np

from core.errors import UserError
from core.files import StrPath
from reader.lists import Clip, list_folder, list_videos, read_list

Input = Union[StrPath, bytes, bytearray, memoryview, np.ndarray]
LIST_SUFFIXES = (".list", ".txt")
