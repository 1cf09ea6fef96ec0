"""`simstream consume`: what is refused before anything is opened."""

from __future__ import annotations

import pytest

from app.commands import run
from app.settings import Settings, load_settings
from schemas.errors import Halt


@pytest.mark.parametrize(
    ("consume", "said"), [("false", "SIMSTREAM_OPINIONS__CONSUME=true"), ("true", "the broker")]
)
def test_opinions_are_heard_only_where_somebody_reads_them(
    monkeypatch: pytest.MonkeyPatch, consume: str, said: str
) -> None:
    def opened(settings: Settings) -> list[str]:
        raise Halt("the broker is asked")

    found = load_settings({"SIMSTREAM_OPINIONS__CONSUME": consume})
    monkeypatch.setattr(run, "load_settings", lambda: found)
    monkeypatch.setattr(run, "make_topics", opened)
    for name in ("configure_logging", "export_metrics", "start_tracing", "calm_collector"):
        monkeypatch.setattr(run, name, lambda *_, **__: None)
    with pytest.raises((ValueError, Halt), match=said):
        run.consume(run.Consumer.OPINIONS)
