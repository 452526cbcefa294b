"""Package metadata: `pip install -e '.[all]'`. Exact versions that were tested together stand in constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

# Lower bounds are what the code needs; constraints.txt and environment.yml pin what was tested.
INSTALL = [
    "accelerate>=1.15",
    "numpy>=2.0",
    "omegaconf>=2.4",
    "peft>=0.21",
    "pillow>=12,<13",
    "pyyaml>=6.0",
    "safetensors>=0.8",
    "sentencepiece>=0.2.1",
    "soundfile>=0.14",
    "tokenizers>=0.23",
    "timm>=1.0.31",
    "torch>=2.11,<2.12",
    "torchaudio>=2.11,<2.12",
    "torchvision>=0.26,<0.27",
    "transformers>=5.17",
    "webdataset>=1.0.2",
]

EXTRAS = {
    "train": ["deepspeed>=0.19.8", "tensorboard>=2.21", "wandb>=0.31"],
    "demo": ["gradio>=6.31"],
    "serve": ["fastapi>=0.115", "uvicorn>=0.34"],  # gradio brings both
    "quantize": ["bitsandbytes>=0.50.2"],
    "test": [
        "hypothesis>=6.170",
        "mypy>=2.4",
        "openai>=3",
        "playwright>=1.65",
        "pyarrow>=26",
        "pytest>=9.2",
        "pytest-timeout>=2.4",
        "pytest-xdist>=3.8",
        "ruff>=0.17.5",
        "types-pyyaml>=6.0.12",
    ],
    "parquet": ["pyarrow>=26"],
    "ja": ["fugashi>=1.5.2", "unidic-lite>=1.0.8"],
}
EXTRAS["all"] = sorted({requirement for extra in EXTRAS.values() for requirement in extra})
# Not part of `all`: it brings some 75 packages. 0.7.1 to 0.7.3 hold wandb at 0.25: beside `train` it is 0.7.
EXTRAS["eval-harness"] = ["lmms-eval>=0.7"]

ENTRY_POINTS = {
    "console_scripts": ["minigpt4o=minigpt4o.cli:main"],
    "lmms_eval.models": ["minigpt4o=minigpt4o.serve.harness:lmms_eval_models"],
}

if __name__ == "__main__":
    setup(
        name="minigpt4o",
        version="0.1.0",
        description="Join frozen vision, audio and language models through a small trained bridge.",
        long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
        long_description_content_type="text/markdown",
        author="minigpt4o authors",
        license="BSD-3-Clause",
        license_files=["LICENSE"],
        python_requires=">=3.11",
        packages=find_packages(include=["minigpt4o", "minigpt4o.*"]),
        package_data={"minigpt4o": ["**/*.yaml", "**/*.html", "**/*.css", "**/*.js"]},
        install_requires=INSTALL,
        extras_require=EXTRAS,
        entry_points=ENTRY_POINTS,
    )
