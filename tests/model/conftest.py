"""Fixtures of tests that train."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from model.encoder import TextEncoder
from model.encoder_process import EncoderProcess
from model.settings import ModelSettings
from schemas.releases import EncoderConfig


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch on one thread: tiny models gain nothing by more, which wait for each other where it is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def encoder_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a release's process loads is loaded here: the same checks, and no interpreter that imports torch.

    For tests of what is refused; that a refusal comes out of the process is for a test without this.
    """

    def load(folder: Path, config: EncoderConfig, settings: ModelSettings, *, nice: int = 0) -> TextEncoder:
        return TextEncoder.load(folder, config, settings)

    monkeypatch.setattr(EncoderProcess, "load", load)
