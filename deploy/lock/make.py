"""Writes the hashed requirements of the container image: `make lock`, after constraints.txt has changed.

Reads   pyproject.toml, constraints.txt; the package index, through uv, in an environment of its own
Writes  common.txt and cuda.txt beside this file
Never   chooses a version: constraints.txt does

pip takes hashes for requirements and not for constraints, and in one call it wants all or none. So the image
is installed from these files, `--no-deps --require-hashes`; tests/test_supply_chain.py compares them with the
constraints and with what the distribution needs. They are for Linux on x86_64 and the image's Python.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
UV = "uv==0.13.9"
#: Left out of the image for processors, which takes torch from an index that it is told.
CUDA = ("torch", "triton", "nvidia-", "cuda-")
_HEAD = "# Written by `make lock`; do not edit.\n"


def wanted() -> list[str]:
    """What the image needs: dependencies, trainer, traces, the base model's weights, what builds."""
    read = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = read["project"]["optional-dependencies"]
    weights = [one for one in extras["embedded"] if "minilm" in one]
    more = [*extras["train"], *extras["tracing"], *weights, *read["build-system"]["requires"]]
    return [*read["project"]["dependencies"], *more]


def compiled(uv: Path, requirements: list[str], scratch: Path) -> list[str]:
    """Each package with its hashes, by uv, as one entry."""
    (scratch / "in.txt").write_text("\n".join(requirements) + "\n")
    (python,) = re.findall(
        r"^ARG PYTHON_IMAGE=python:([0-9.]+)-", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    options = (
        "--generate-hashes --no-annotate --no-header --no-build --quiet "
        f"--python-version {python} --python-platform x86_64-manylinux_2_28"
    )
    files: list[str | Path] = [
        "--constraint",
        ROOT / "constraints.txt",
        "--output-file",
        scratch / "out.txt",
        scratch / "in.txt",
    ]
    subprocess.run([uv, "pip", "compile", *options.split(), *files], check=True)
    return re.split(r"\n(?=\S)", (scratch / "out.txt").read_text().strip())


def main() -> None:
    """Write the files."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        venv.create(scratch / "venv", with_pip=True)
        tools = scratch / "venv" / "bin"
        pip: list[str | Path] = [
            tools / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        subprocess.run([*pip, UV], check=True)
        entries = compiled(tools / "uv", wanted(), scratch)
    cuda = [entry for entry in entries if entry.startswith(CUDA)]
    common = [entry for entry in entries if entry not in cuda]
    for file, found in (("common.txt", common), ("cuda.txt", cuda)):
        (HERE / file).write_text(_HEAD + "\n".join(found) + "\n")
        print(f"{file}: {len(found)} packages", file=sys.stderr)


if __name__ == "__main__":
    main()
