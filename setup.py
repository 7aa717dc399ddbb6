"""What pyproject.toml cannot say: the folder configs is installed as potstill/configs."""

from setuptools import find_packages, setup

PACKAGES = ("potstill", "foundations", "strategies", "retrieval", "datamodules", "lightning_modules", "studies")

setup(
    packages=[*find_packages(include=[*PACKAGES, *(f"{name}.*" for name in PACKAGES)]), "potstill.configs"],
    package_dir={"potstill.configs": "configs"},
    package_data={"": ["py.typed", "*.j2"], "potstill.configs": ["*.yaml", "*/*.yaml", "*/*/*.yaml", "*/*.sbatch"]},
)
