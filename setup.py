"""Packaging: what the project needs, and within which bounds; how its folders become one package."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOMS = ("core", "models", "reader", "weights", "metrics", "backends", "engine", "serve", "tools")
ENTRIES = ("train", "eval", "predict", "inference_model", "serve_model")
# How a line of the sources names a room or an entry: `from core.config import ...`, `import train as module`.
NAMED = re.compile(
    rf"^([ \t]*(?:from|import) )(?=(?:{'|'.join(ROOMS + ENTRIES)})(?:\.\w+)* (?:import|as) )", re.MULTILINE
)
INIT = Path(__file__).with_name("stnet") / "__init__.py"
VERSION = re.search('__version__ = "(.+?)"', INIT.read_text(encoding="utf-8")).group(1)


class BelowStnet(build_py):
    """Lays entries and rooms below `stnet` and lets their imports say so: a user's `models.py` is not in the way."""

    def run(self):
        """Copy, into an empty folder: what an earlier version left there would become part of the wheel."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()

    def find_package_modules(self, package, package_dir):
        """(package, module, file) of each module; the entries are modules of `stnet`."""
        entries = [(package, name, f"{name}.py") for name in ENTRIES] if package == "stnet" else []
        return super().find_package_modules(package, package_dir) + entries

    def build_module(self, module, module_file, package):
        """Copy one file."""
        copy, copied = super().build_module(module, module_file, package)
        Path(copy).write_text(NAMED.sub(r"\1stnet.", Path(module_file).read_text(encoding="utf-8")), encoding="utf-8")
        return copy, copied


setup(
    name="stnet-paddle",
    version=VERSION,
    description="StNet video classification (AAAI 2019) for PaddlePaddle",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[
        "stnet",
        *(f"stnet.{name}" for name in find_packages(include=[f"{room}*" for room in ROOMS])),
        "stnet.configs",
        "stnet.data.dataset",
    ],
    package_dir={f"stnet.{name}": name for name in (*ROOMS, "configs", "data")},
    package_data={
        "stnet": ["py.typed"],
        "stnet.configs": ["*.yaml"],
        "stnet.data.dataset": ["*.json"],
        "stnet.engine.report": ["*.html", "*.css", "*.js"],
        "stnet.serve": ["page/*"],
    },
    cmdclass={"build_py": BelowStnet},
    entry_points={"console_scripts": ["stnet = stnet.__main__:main"]},
    python_requires=">=3.9",
    install_requires=[
        "av>=14.2",
        'decord>=0.6; sys_platform == "linux" and platform_machine == "x86_64"',  # no wheels elsewhere: PyAV decodes
        "filelock>=3",
        "jinja2>=3",
        "matplotlib>=3.5",
        "numpy>=1.21",
        "opencv-python>=4.5",
        "pillow>=8",
        "pyyaml>=5.4",
        "tqdm>=4.60",
    ],
    extras_require={
        "browser": ["selenium>=4.11"],
        "cpu": ["paddlepaddle>=2.6.2,<4", "setuptools"],
        "gpu": ["paddlepaddle-gpu>=2.6.2,<4", "setuptools"],
        "onnx": ["ml_dtypes", "onnxruntime>=1.18", "paddle2onnx>=2.1"],
        "openvino": ["openvino>=2024.0", "onnxruntime>=1.18", "paddle2onnx>=2.1"],
        "parquet": ["pyarrow>=16"],
        "serve": [
            "fastapi>=0.115",
            "fastapi-offline>=1.7",
            "prometheus-client>=0.20",
            "pydantic>=2.7",
            "python-multipart>=0.0.18",
            "uvicorn>=0.30",
        ],
        "test": [
            "httpx>=0.24",
            "imageio-ffmpeg>=0.6",
            "pyarrow>=16",
            "pytest>=7.3",
            'schemathesis>=4; python_version >= "3.10"',
            "scikit-learn>=1.0",
            "setuptools>=70.1",
        ],
        "visualdl": ["visualdl>=2.5"],
        "dev": [
            "httpx>=0.24",
            "imageio-ffmpeg>=0.6",
            "mypy>=1.15,<2",
            "pre-commit>=3",
            "pyarrow>=16",
            "pytest>=7.3",
            "ruff>=0.17,<0.18",
            'schemathesis>=4; python_version >= "3.10"',
            "scikit-learn>=1.0",
            "setuptools>=70.1",
        ],
    },
)
