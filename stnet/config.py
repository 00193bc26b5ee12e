"""Configuration: a YAML file checked against typed sections, with command-line overrides.

A section is a dataclass: its fields are the keys. The class of MODEL belongs to the model, which may add its own.
"""

import contextlib
import copy
import dataclasses
import difflib
import os
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Optional, Union

from stnet.utils.errors import UserError
from stnet.utils.files import StrPath, find_file
from stnet.utils.parsing import MAX_YAML, parse_yaml

PACKAGE = os.path.dirname(os.path.abspath(__file__))  # holds configs and labels
MODES = ("train", "valid", "test", "infer")

# Keys of older files that have no effect: accepted and reported. "SECTION.key", or "key" for all sections.
OBSOLETE = {
    "num_gpus": "the number of cards is what the launcher starts",
    "MODEL.channels_last": "the network computes in one layout, whatever the device",
    "buf_size": "the loader keeps two batches per worker ready",
    "TRAIN.to_static": "the compiled network was not faster",
    "TRAIN.fused_optimizer": "one update for all tensors was not faster",
    **{f"{section}.seglen": "it is MODEL.seglen" for section in ("TRAIN", "VALID", "TEST", "INFER")},
}
# Renamed keys. Where both are given, the new one counts.
MOVED = {"TRAIN.pretrain_base": "TRAIN.pretrain", "INFER.kinetics_labels": "MODEL.labels"}
# Limits for a configuration or a deploy.yaml, which anyone may have written.
MOST_CLASSES, MOST_FRAMES, LARGEST_SIDE = 65536, 16384, 4096  # frames of a clip, pixels of a frame's side
_MOST_PIXELS = 1 << 26  # of all frames of a clip; the released network takes 8 million
_TYPE_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "True or False", list: "a list"}


def key(
    default: Any, least: Optional[float] = None, choices: Optional[tuple[Any, ...]] = None, most: float = float("inf")
) -> Any:
    """A dataclass field with bounds or a set of allowed values."""
    metadata = {"least": least, "choices": choices, "most": most}
    if isinstance(default, list):
        return field(metadata=metadata, default_factory=lambda: copy.copy(default))
    return field(metadata=metadata, default=default)


def filled_in(default: Any) -> Any:
    """A dataclass field that is not a key: Config.section sets it."""
    return field(metadata={"filled_in": True}, default=default)


def keys_of(section: Any) -> dict[str, dataclasses.Field[Any]]:
    """The keys of a section, or of its class."""
    return {f.name: f for f in dataclasses.fields(section) if not f.metadata.get("filled_in")}


@dataclass
class ModelSection:
    """MODEL keys that every model has."""

    name: str
    format: str = "mp4"  # one of stnet.reader.formats.FORMATS
    metrics: list = key([])  # names of metrics.METRICS, besides top-k accuracy and loss
    num_classes: int = key(400, least=1, most=MOST_CLASSES)
    seg_num: int = key(7, least=1, most=MOST_FRAMES)
    seglen: int = key(5, least=1, most=MOST_FRAMES)
    image_mean: list = key([0.485, 0.456, 0.406])
    image_std: list = key([0.229, 0.224, 0.225])
    topk: int = key(5, least=1)
    labels: str = "./data/dataset/kinetics_labels.json"


@dataclass
class ReaderSection:
    """Keys of every section that reads clips. seg_num defaults to that of MODEL, seglen is always MODEL's."""

    filelist: str = ""
    batch_size: int = key(1, least=1, most=65536)
    short_size: int = key(256, least=1, most=LARGEST_SIDE)
    target_size: int = key(224, least=1, most=LARGEST_SIDE)
    num_reader_threads: int = key(12, least=0, most=1024)
    max_bad_ratio: float = key(0.1, least=0.0)
    decode_timeout: float = key(60.0, least=0.1)
    seg_num: Optional[int] = key(None, least=1, most=MOST_FRAMES)
    seglen: int = filled_in(0)
    num_clips: int = filled_in(1)  # keys in TEST
    num_crops: int = filled_in(1)

    @property
    def views(self) -> int:
        """Number of views of a video, over which its probabilities are averaged."""
        return self.num_clips * self.num_crops


@dataclass
class TrainSection(ReaderSection):
    """TRAIN: reading, optimisation and schedule."""

    use_gpu: Union[bool, Literal["auto"]] = "auto"
    epoch: int = key(60, least=1)
    learning_rate: float = key(0.01, least=0.0)
    learning_rate_decay: float = key(0.1, least=0.0)
    l2_weight_decay: float = key(1e-4, least=0.0)
    momentum: float = key(0.9, least=0.0)
    pretrain: str = ""
    flip_ratio: float = key(0.5, least=0.0)
    total_videos: int = key(0, least=0)
    save_interval: int = key(0, least=0)
    keep: int = key(3, least=0)
    accumulate_steps: int = key(1, least=1)
    warmup_steps: int = key(0, least=0)
    clip_norm: float = key(0.0, least=0.0)
    ema_decay: float = key(0.0, least=0.0)
    amp: str = key("off", choices=("off", "O1", "O2"))
    amp_dtype: str = key("float16", choices=("float16", "bfloat16"))
    sync_bn: bool = False
    optimizer: str = key("momentum", choices=("momentum", "adamw"))
    schedule: str = key("step", choices=("step", "cosine"))
    label_smoothing: float = key(0.0, least=0.0, most=0.9)
    class_balance: str = key("none", choices=("none", "loss"))
    patience: int = key(0, least=0)
    freeze: str = "none"
    augmented_views: int = key(0, least=0)
    feature_cache: str = ""


@dataclass
class TestSection(ReaderSection):
    """TEST: reading, and the number of views of a video (stnet.reader.clip)."""

    __test__ = False  # not a test class for pytest

    num_clips: int = key(1, least=1, most=100)
    num_crops: int = key(1, choices=(1, 3))


@dataclass
class InferSection(ReaderSection):
    """INFER: a list, or one video or folder of videos."""

    video_path: str = ""


SECTIONS: dict[str, type[ReaderSection]] = {
    "TRAIN": TrainSection,
    "VALID": ReaderSection,
    "TEST": TestSection,
    "INFER": InferSection,
}


@dataclass
class Config:
    """A checked configuration. Sections are attributes: `config.MODEL.seg_num`, `config.TRAIN.epoch`."""

    MODEL: ModelSection
    TRAIN: TrainSection
    VALID: ReaderSection
    TEST: TestSection
    INFER: InferSection
    notes: list[str] = field(default_factory=list)

    def section(self, mode: str) -> ReaderSection:
        """The section of a mode ("train", "valid", "test", "infer"), seg_num and seglen filled in from MODEL."""
        if mode not in MODES:
            raise UserError(f"unknown mode {mode!r}; known: {', '.join(MODES)}")
        section: ReaderSection = getattr(self, mode.upper())
        return dataclasses.replace(section, seg_num=section.seg_num or self.MODEL.seg_num, seglen=self.MODEL.seglen)

    def scoring(self) -> dict[str, dict[str, Any]]:
        """Settings that predictions depend on, as plain data."""
        reading = ("short_size", "target_size", "seg_num", "seglen")
        infer = self.section("infer")
        return {"MODEL": self.as_dict()["MODEL"], "INFER": {name: getattr(infer, name) for name in reading}}

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """The whole configuration as plain data, for logs and result files."""
        sections = {}
        for name in ("MODEL", *SECTIONS):
            section = getattr(self, name)
            sections[name] = {key_name: copy.copy(getattr(section, key_name)) for key_name in keys_of(section)}
        return sections


def load_config(
    source: Union[StrPath, Mapping[str, Any]],
    model_section: Callable[[str], type[ModelSection]],
    overrides: Iterable[str] = (),
    values: Mapping[str, Any] = MappingProxyType({}),
) -> Config:
    """Read, override and check a configuration.

    Args:
        source: YAML file, relative to the working directory or to the project; or the sections saved with weights.
        model_section: from a model's name to the dataclass of its MODEL section.
        overrides: "SECTION.key=value", applied in order; values are YAML.
        values: SECTION.key to a value that replaces the file's, before the overrides.

    Raises:
        UserError: names the invalid key and the nearest known one.
    """
    if isinstance(source, (str, os.PathLike)):
        path = find_file(os.fspath(source), PACKAGE)
        data = _read_yaml(path)
    else:
        path, data = "the configuration beside the weights", copy.deepcopy(dict(source))
    overridden = {**values, **dict(map(parse_override, overrides))}
    for name, value in overridden.items():
        section_name, _, key_name = name.partition(".")
        if not isinstance(data.get(section_name), dict):
            data[section_name] = {}
        data[section_name][key_name] = value
    missing = [name for name in ("MODEL", *SECTIONS) if data.get(name) is None]
    if missing:
        raise UserError(f"{path}: missing section {', '.join(missing)}")
    _refuse_unknown(data, ("MODEL", *SECTIONS), f"{path}: section")
    for name, section in data.items():
        if not isinstance(section, dict):
            raise UserError(f"{path}: section {name}: expected keys and values, found {section!r:.60}")
    notes = _move(data)
    if "name" not in data["MODEL"]:
        raise UserError(f"{path}: missing key MODEL.name")
    classes: dict[str, type] = {"MODEL": model_section(data["MODEL"]["name"]), **SECTIONS}
    sections = {name: _parse_section(cls, data[name], name, path, notes, overridden) for name, cls in classes.items()}
    config = Config(**sections, notes=notes)
    _check_together(config, data, path)
    return config


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = parse_yaml(file.read(MAX_YAML + 1))
    except FileNotFoundError:
        raise UserError(f"config file not found: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"config file {path} cannot be read: {error}") from None
    except ValueError as error:
        raise UserError(f"config file {path} is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"config file {path}: expected sections {', '.join(('MODEL', *SECTIONS))}, found {data!r:.60}")
    return data


def parse_override(text: str) -> tuple[str, Any]:
    """(SECTION.key, value) of "SECTION.key=value", the value being YAML. Raises UserError."""
    name, equals, written = text.partition("=")
    section, dot, key_name = name.strip().partition(".")
    if not (equals and dot and section and key_name):
        raise UserError(f"override {text!r}: expected SECTION.key=value, for example TRAIN.epoch=10")
    _refuse_unknown([section], ("MODEL", *SECTIONS), f"override {text!r}: section")
    try:
        return name.strip(), parse_yaml(written)
    except ValueError:
        raise UserError(f"override {text!r}: the value is not valid YAML") from None


def _refuse_unknown(names: Iterable[str], known: tuple[str, ...], where: str) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise UserError(f"{where} {name!r} is unknown; {hint}")


def _move(data: dict[str, Any]) -> list[str]:
    """Rename the keys in MOVED, in place. Returns notes for the log."""
    notes = []
    for old, new in MOVED.items():
        (section, name), (new_section, new_name) = old.split("."), new.split(".")
        if name in data[section]:
            value = data[section].pop(name)
            ignored = new_name in data[new_section]
            data[new_section].setdefault(new_name, value)
            notes.append(f"{old} is ignored: {new} is given" if ignored else f"{old} is taken as {new}")
    return notes


def _parse_section(cls: type, data: dict[str, Any], name: str, path: str, notes: list[str], given: Any = ()) -> Any:
    """Check a section. `given`: the SECTION.key that are not of the file."""
    fields, hints = keys_of(cls), typing.get_type_hints(cls)
    for spec in fields.values():
        spec.type = hints[spec.name]  # a string, where a module postpones its annotations
    values = {}
    for field_name, value in data.items():
        reason = OBSOLETE.get(f"{name}.{field_name}") or OBSOLETE.get(field_name)
        if reason and field_name not in fields:
            notes.append(f"{name}.{field_name} is ignored: {reason}")
            continue
        source = "override" if f"{name}.{field_name}" in given else path
        _refuse_unknown([field_name], tuple(fields), f"{source}: key {name}.")
        values[field_name] = _check(value, fields[field_name], f"{source}: {name}.{field_name}")
    return cls(**values)


def _check(value: Any, spec: dataclasses.Field[Any], where: str) -> Any:
    """Convert `value` to the type of `spec` and check its bounds."""
    kinds = typing.get_args(spec.type) if typing.get_origin(spec.type) is typing.Union else (spec.type,)
    words = [word for kind in kinds for word in typing.get_args(kind)]
    if (value is None and type(None) in kinds) or value in words:
        return value
    expected: Any = kinds[0]
    if expected is str and value is None:
        value = ""
    if expected is str and value is False and "off" in (spec.metadata.get("choices") or ()):
        value = "off"  # YAML 1.1 reads an unquoted off as False
    if expected is float and (isinstance(value, str) or type(value) is int):
        with contextlib.suppress(ValueError):
            value = float(value)  # YAML 1.1 reads 1e-4 (no dot), as in the original's file, as text
    if type(value) is not expected:
        raise UserError(f"{where}: expected {' or '.join([_TYPE_NAMES[expected], *words])}, found {value!r:.60}")
    least, most, choices = (spec.metadata.get(bound) for bound in ("least", "most", "choices"))
    if least is not None and not value >= least:
        raise UserError(f"{where}: expected at least {least}, found {value!r:.40}")
    if expected in (int, float) and most is not None and value > most:
        raise UserError(f"{where}: expected at most {most}, found {value!r:.40}")
    if choices and value not in choices:
        raise UserError(f"{where}: expected one of {', '.join(map(str, choices))}, found {value!r:.60}")
    return value


def _check_together(config: Config, data: Mapping[str, Any], path: str) -> None:
    """Check keys against each other, and `data` for a seglen of a section's own, as older files may have."""
    config.MODEL.topk = min(config.MODEL.topk, config.MODEL.num_classes)
    for name in ("image_mean", "image_std"):
        value = getattr(config.MODEL, name)
        if len(value) != 3 or not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value):
            raise UserError(f"{path}: MODEL.{name}: expected three numbers (R, G, B), found {value!r:.60}")
    if any(v <= 0 for v in config.MODEL.image_std):
        raise UserError(f"{path}: MODEL.image_std: expected positive numbers, found {config.MODEL.image_std!r:.60}")
    train = config.TRAIN
    if train.feature_cache and (train.freeze != "backbone" or not train.augmented_views or train.amp == "O2"):
        raise UserError(
            f"{path}: TRAIN.feature_cache keeps features of a frozen backbone",
            "set TRAIN.freeze to backbone, TRAIN.augmented_views to 1 or more, and TRAIN.amp to off or O1",
        )
    for name in SECTIONS:
        section = getattr(config, name)
        if section.target_size > section.short_size:
            raise UserError(
                f"{path}: {name}.target_size {section.target_size} is larger than {name}.short_size "
                f"{section.short_size}: the crop must fit into the scaled frame"
            )
        problem = clip_problem(section.seg_num or config.MODEL.seg_num, config.MODEL.seglen, section.target_size)
        if problem:
            raise UserError(f"{path}: {name}: {problem}")
        seglen = data[name].get("seglen")
        if seglen not in (None, config.MODEL.seglen):
            both = f"{name}.seglen is {seglen!r} and MODEL.seglen {config.MODEL.seglen}"
            raise UserError(f"{path}: {both}: expected MODEL.seglen alone, which counts in every section")


def clip_problem(seg_num: int, seglen: int, target_size: int) -> str:
    """The limit that a clip exceeds; "" if it exceeds none."""
    frames, pixels = seg_num * seglen, seg_num * seglen * target_size**2
    if frames > MOST_FRAMES or pixels > _MOST_PIXELS:
        size = f"{seg_num} segments of {seglen} frames, {target_size} x {target_size}"
        return f"a clip of {size}, is larger than the {MOST_FRAMES} frames or {_MOST_PIXELS} pixels that are read"
    return ""
