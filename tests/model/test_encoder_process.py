"""An encoder in a process of its own answers as one in this process, and its end is heard of."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from adapters.metrics import ENCODED_TEXTS_TOTAL, ENCODER_SECONDS_TOTAL
from model.encoder import TextEncoder
from model.encoder_process import EncoderProcess
from model.sentence_config import read_encoder_config
from model.settings import ModelSettings, UnusableModel
from schemas.errors import Transient
from tests.support.tiny_model import write_tiny_model

TEXTS = ["red lamp", "lamp", "blue red red lamp"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def settings_for(folder: Path) -> ModelSettings:
    return ModelSettings(name=str(folder), device="cpu", dtype="fp32", batch_tokens=8)


def start(folder: Path) -> EncoderProcess:
    settings = settings_for(folder)
    return EncoderProcess.load(folder, read_encoder_config(folder, settings), settings)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Iterator[EncoderProcess]:
    encoder = start(folder)
    yield encoder
    encoder.close()


def test_it_answers_as_an_encoder_of_this_process(folder: Path, encoder: EncoderProcess) -> None:
    settings = settings_for(folder)
    local = TextEncoder.load(folder, read_encoder_config(folder, settings), settings)
    assert encoder.dimension == local.dimension
    for options in ({}, {"query": True}, {"background": True}):
        assert np.allclose(
            encoder.encode_array(TEXTS, **options), local.encode_array(TEXTS, **options), atol=1e-6
        )
    assert encoder.encode(TEXTS) == encoder.encode_array(TEXTS).tolist()
    assert encoder.encode([]) == []
    local.close()


def test_callers_side_by_side_get_their_own_vectors(encoder: EncoderProcess) -> None:
    texts = [f"lamp {'red ' * (number % 7)}{'blue ' * (number % 3)}" for number in range(60)]
    expected = encoder.encode_array(texts)
    wrong: list[int] = []

    def ask(offset: int) -> None:
        for at in range(offset, len(texts), 6):
            if np.abs(encoder.encode_array(texts[at : at + 1]) - expected[at]).max() > 1e-5:
                wrong.append(at)

    askers = [threading.Thread(target=ask, args=(offset,)) for offset in range(6)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(60)
    assert wrong == []


def test_what_it_does_is_counted_here(encoder: EncoderProcess) -> None:
    texts, seconds = (metric._value.get() for metric in (ENCODED_TEXTS_TOTAL, ENCODER_SECONDS_TOTAL))  # noqa: SLF001
    encoder.encode(TEXTS)
    deadline = time.monotonic() + 10
    while ENCODED_TEXTS_TOTAL._value.get() < texts + 3 and time.monotonic() < deadline:  # noqa: SLF001
        time.sleep(0.01)
    assert ENCODED_TEXTS_TOTAL._value.get() == texts + 3  # noqa: SLF001
    assert ENCODER_SECONDS_TOTAL._value.get() > seconds  # noqa: SLF001


def test_a_model_that_cannot_be_loaded_is_refused_as_in_this_process(folder: Path, tmp_path: Path) -> None:
    settings = settings_for(folder)
    config = read_encoder_config(folder, settings)
    with pytest.raises(UnusableModel, match=r"tokenizer\.json is missing"):
        EncoderProcess.load(tmp_path, config, settings)


def test_a_killed_encoder_is_said_to_everybody_who_waits_and_asks(folder: Path) -> None:
    encoder = start(folder)
    assert encoder.alive
    os.kill(encoder.pid, signal.SIGSTOP)
    failures: list[Exception] = []

    def ask() -> None:
        try:
            encoder.encode(TEXTS)
        except Transient as error:
            failures.append(error)

    waiting = threading.Thread(target=ask)
    waiting.start()
    time.sleep(0.1)
    os.kill(encoder.pid, signal.SIGKILL)
    waiting.join(30)
    assert len(failures) == 1
    for failure in failures:
        assert "killed by SIGKILL" in str(failure)
    with pytest.raises(Transient, match="has ended"):
        encoder.encode(TEXTS)
    assert not encoder.alive
    encoder.close()


def test_its_log_is_heard_here_and_closing_ends_it(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        encoder = start(folder)
    said = [record.getMessage() for record in caplog.records if record.name == "model.encoder"]
    assert any(line.startswith("encoder_ready") for line in said)
    encoder.close()
    encoder.close()
    with pytest.raises(ProcessLookupError):
        os.kill(encoder.pid, 0)


def test_it_ends_with_a_parent_that_was_killed(folder: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from tests.model.test_encoder_process import start;"
        "print(start(Path(sys.argv[1])).pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and "\nState:\tZ" not in Path(f"/proc/{child}/status").read_text():
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.02)
