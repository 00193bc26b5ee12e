"""Packaging: what the project needs, and within which bounds."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="stnet-paddle",
    version="0.1.0",
    description="StNet video classification (AAAI 2019) for PaddlePaddle",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(
        include=["core*", "models*", "reader*", "metrics*", "backends*", "engine*", "weights*", "tools*"]
    ),
    python_requires=">=3.9",
    install_requires=[
        "av>=14.2",
        'decord>=0.6; sys_platform == "linux" and platform_machine == "x86_64"',  # no wheels elsewhere: PyAV decodes
        "filelock>=3",
        "matplotlib>=3.5",
        "numpy>=1.21",
        "opencv-python>=4.5",
        "pillow>=8",
        "pyyaml>=5.4",
        "tqdm>=4.60",
    ],
    extras_require={
        "cpu": ["paddlepaddle>=2.6.2,<4", "setuptools"],
        "gpu": ["paddlepaddle-gpu>=2.6.2,<4", "setuptools"],
        "onnx": ["onnxruntime>=1.15", "paddle2onnx>=2.1"],
        "test": ["imageio-ffmpeg>=0.6", "pytest>=7.3"],
        "visualdl": ["visualdl>=2.5"],
        "dev": ["imageio-ffmpeg>=0.6", "mypy>=1.15,<2", "pre-commit>=3", "pytest>=7.3", "ruff>=0.17,<0.18"],
    },
)
