"""Packaging: what the project needs, and within which bounds."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search('__version__ = "(.+?)"', (HERE / "stnet" / "__init__.py").read_text(encoding="utf-8")).group(1)
shutil.rmtree(HERE / "build" / "lib", ignore_errors=True)  # what an earlier version left would go into the wheel

setup(
    name="stnet-paddle",
    version=VERSION,
    description="StNet video classification (AAAI 2019) for PaddlePaddle",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[*find_packages(include=["stnet*"]), "stnet.configs", "stnet.data.dataset"],
    package_data={
        "stnet": ["py.typed"],
        "stnet.configs": ["*.yaml"],
        "stnet.data.dataset": ["*.json"],
        "stnet.report": ["*.html", "*.css", "*.js"],
        "stnet.serve": ["page/*"],
    },
    entry_points={"console_scripts": ["stnet = stnet.__main__:main"]},
    python_requires=">=3.9",
    install_requires=[
        "av>=14.2",
        'decord>=0.6; sys_platform == "linux" and platform_machine == "x86_64"',  # no wheels elsewhere: PyAV decodes
        "filelock>=3",
        "jinja2>=3",
        "matplotlib>=3.6",
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
            "pytest>=8",
            "pytest-xdist>=3.5",
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
            "pytest>=8",
            "pytest-xdist>=3.5",
            "ruff>=0.17,<0.18",
            'schemathesis>=4; python_version >= "3.10"',
            "scikit-learn>=1.0",
            "setuptools>=70.1",
        ],
    },
)
