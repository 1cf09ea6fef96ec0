"""What gets into the image and what may run: pins with hashes, audits, no trust in foreign code."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.settings import variables

ROOT = Path(__file__).parent.parent
LOCKS = ("common.txt", "cuda.txt")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
HOUSE = (*(name for name in PROJECT["tool"]["setuptools"]["packages"] if "." not in name), "benchmarks")


# --- pins and hashes -----------------------------------------------------------------------------


def pins(text: str) -> dict[str, str]:
    """Versions by canonical name."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def locked(name: str) -> dict[str, list[str]]:
    """Hashes by `name==version` of a lock; every line that is no comment is one of the two."""
    found: dict[str, list[str]] = {}
    pin = ""
    for line in (ROOT / "deploy" / "lock" / name).read_text().splitlines():
        if line.startswith("#"):
            continue
        if match := re.fullmatch(r"    --hash=sha256:([0-9a-f]{64})(?: \\)?", line):
            found[pin].append(match[1])
        else:
            match = re.fullmatch(r"([A-Za-z0-9._-]+==[^\s;]+) \\", line)
            assert match is not None, line
            pin = match[1]
            found[pin] = []
    return found


def closure(requirements: list[str]) -> set[str]:
    """Canonical names of all that these need on this machine, as the installed distributions say."""
    found: set[str] = set()
    todo = [Requirement(text) for text in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        wanted = todo.pop()
        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found.add(name)
        for text in distribution(name).requires or ():
            inner = Requirement(text)
            if inner.marker is None or any(
                inner.marker.evaluate(
                    {"extra": extra, "python_version": "3.11", "python_full_version": "3.11.13"}
                )
                for extra in (extras or {""})
            ):
                todo.append(inner)
    return found


CONSTRAINTS = pins((ROOT / "constraints.txt").read_text())


def test_every_locked_version_is_that_of_the_constraints_and_has_a_hash() -> None:
    compared = 0
    for name in LOCKS:
        for pin, hashes in locked(name).items():
            assert hashes, f"{pin} has no hash"
            package, _, version = pin.partition("==")
            assert CONSTRAINTS[canonicalize_name(package)] == version, f"{pin}: run make lock"
            compared += 1
    assert compared > 100


def test_the_locks_hold_exactly_what_the_image_needs() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    weights = [text for text in extras["embedded"] if "minilm" in text]
    build = PROJECT["build-system"]["requires"]
    needed = closure(
        [*PROJECT["project"]["dependencies"], *extras["train"], *extras["tracing"], *weights, *build]
    )
    common, cuda = (set(pins("\n".join(locked(name)))) for name in LOCKS)
    assert not common & cuda
    assert common | cuda == needed, "run make lock"
    # Without torch and what it computes on a GPU with, which the image for processors does without.
    assert "torch" in cuda
    assert not [name for name in common if re.match(r"torch$|triton|nvidia|cuda", name)]
    assert [name for name in cuda if not re.match(r"torch$|triton|nvidia|cuda", name)] == []


def test_the_image_is_installed_by_hash_and_chooses_nothing_else() -> None:
    # A shell's lines that end in a backslash are one.
    calls = re.findall(r"pip install ([^\n&]*)", DOCKERFILE.replace("\\\n", " "))
    by_hash = [call for call in calls if "--require-hashes" in call]
    files = {file for call in by_hash for file in re.findall(r"-r lock/(\S+)", call)}
    assert files == set(LOCKS)
    (torch,) = (call for call in calls if "TORCH_INDEX_URL" in call)
    assert "^torch==" in torch
    own = [call for call in calls if call not in (*by_hash, torch)]
    assert own
    for call in (*own, *by_hash, torch):
        assert "--no-deps" in call, call
    for call in own:
        assert re.fullmatch(r"--no-deps --no-build-isolation \. ?", call), call
    assert "!deploy/lock" in (ROOT / ".dockerignore").read_text().splitlines()


def test_a_public_host_audits_all_that_is_pinned() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    steps = " ".join(step.get("run", "") for step in jobs["audit"]["steps"])
    for file in (*(f"deploy/lock/{name}" for name in LOCKS), "constraints.txt"):
        assert f"-r {file}" in steps
        assert (ROOT / file).is_file()
    assert "npm audit --prefix service/explorer" in steps
    assert (ROOT / "service" / "explorer" / "package-lock.json").is_file()


# --- what may run --------------------------------------------------------------------------------


def trusting(source: str) -> Iterator[str]:
    """What a module says that could run foreign code: as a call, a keyword, or a key of a dictionary."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword):
            yield from _setting(node.arg, node.value)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant):
                    yield from _setting(key.value, value)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            module = getattr(node, "module", None)
            yield from (f"imports {name}" for name in (module, *names) if name in _PICKLING)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "eval", "exec"):
            yield f"calls {ast.unparse(node.func)}"


_PICKLING = ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")


def _setting(name: object, value: ast.expr) -> Iterator[str]:
    if name in ("trust_remote_code", "allow_pickle") and not (
        isinstance(value, ast.Constant) and value.value is False
    ):
        yield f"{name}={ast.unparse(value)}"


def modules() -> list[Path]:
    """Every module of the distribution and the benchmarks."""
    return [
        path for name in HOUSE for path in (ROOT / name).rglob("*.py") if "node_modules" not in path.parts
    ]


def test_no_module_trusts_code_or_pickles_that_come_with_a_model() -> None:
    checked, said = 0, 0
    for path in modules():
        text = path.read_text()
        assert list(trusting(text)) == [], path
        checked += 1
        said += text.count("trust_remote_code")
    assert checked > 200
    assert said >= 3, "loaders say that they do not trust"


@pytest.mark.parametrize(
    "source",
    [
        "f(x, trust_remote_code=True)",
        "f(x, trust_remote_code=trusted)",
        "kwargs = {'trust_remote_code': True}",
        "np.load(path, allow_pickle=True)",
        "import pickle",
        "from joblib import load",
        "torch.load(path, weights_only=True)",
    ],
)
def test_a_module_that_did_would_be_found(source: str) -> None:
    assert list(trusting(source)) != []


# --- the page about it ---------------------------------------------------------------------------


def test_the_threat_model_names_code_and_tests_that_exist() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    named = set(re.findall(r"`([\w./-]+\.(?:py|yml))(?:::(\w+))?`", page))
    assert len(named) > 30
    for path, test in named:
        assert (ROOT / path).is_file(), path
        assert not test or f"def {test}(" in (ROOT / path).read_text(), f"{path}::{test}"
    settings = set(re.findall(r"SIMSTREAM_[A-Z_]+[A-Z]", page))
    assert settings <= set(variables())
