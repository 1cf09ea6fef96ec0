"""The trainer that runs by itself: every so often it looks whether there is a reason to train, and does.

Reads   what app/learning.py reads; `reference.json`, which the last run has left
Writes  what app/learning.py writes; `decisions.jsonl` in the training folder: what was decided, and why
Never   trains beside another trainer, nor ends because one run has failed
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.archive import Archive
from adapters.metrics import TRAINING_DECISIONS_TOTAL
from adapters.releases import ReleaseStore
from app.learning import (
    follow,
    live_release,
    on_its_way,
    reference_file,
    the_only_trainer,
    train_once,
    window,
)
from app.learning_inputs import catalogue
from app.settings import Settings
from app.wiring import open_store
from model.memory import give_back
from schemas.errors import Halt, Transient

if TYPE_CHECKING:
    from model.schedule import Decision, Drift, Reference
    from model.vectors import ReleaseVectors

log = logging.getLogger(__name__)

DECISIONS = "decisions.jsonl"
_KEPT_DECISIONS = 500


class Schedule:
    """Decides and trains. One thread; `now` is the clock that decisions go by."""

    def __init__(
        self,
        settings: Settings,
        data_dir: Path,
        *,
        say: Callable[[str], None] = lambda sentence: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._data_dir = data_dir
        self._say = say
        self._now = now
        self._encoder: tuple[str, ReleaseVectors] | None = None

    def run(self, stopped: threading.Event) -> None:
        """Look, perhaps train, and wait, until stopped."""
        while not stopped.is_set():
            try:
                self.step()
            except (Halt, Transient, ValueError) as error:
                # Nothing live yet, another trainer, a store that is away, a recipe that cannot be followed.
                log.warning("training_not_done reason=%s", error)
                self._say(f"not trained: {error}")
            except Exception as error:
                # A full disk, a GPU without memory, a file that has gone: by the next look it may be well.
                log.exception("training_failed kind=%s", type(error).__name__)
                self._say(f"not trained: {type(error).__name__}: {error}")
                self._forget_encoder()
            # Once nothing refers to the failure any more, nor by it to what was being trained.
            give_back()
            stopped.wait(self._settings.schedule.check_minutes * 60)

    def step(self) -> Decision:
        """Decide once, and train if so decided. Raises Halt, Transient, and whatever a run fails of."""
        with the_only_trainer(self._settings) as lease:
            follow(self._settings)
            parent = live_release(self._settings, self._data_dir)
            decision = self._decide(parent)
            self._remember(decision)
            TRAINING_DECISIONS_TOTAL.labels(decision="train" if decision.train else "wait").inc()
            log.info("training_decision train=%s reason=%s", decision.train, decision.reason)
            self._say(f"{'training' if decision.train else 'waiting'}: {decision.reason}")
            if not decision.train:
                return decision
            self._forget_encoder()  # its memory is the run's
            train_once(self._settings, self._data_dir, parent=parent, say=self._say, still_ours=lease.check)
            return decision

    def _decide(self, parent: str) -> Decision:
        from model.schedule import Decision, decide

        replacing = on_its_way(self._settings)
        if replacing is not None:
            # A run would be judged against what is about to be replaced.
            return Decision(at=self._now(), train=False, reason=f"{replacing} is on its way to be live")
        held, reference = self._archive(), self._reference()
        return decide(
            now=self._now(),
            reference=reference,
            new_events=held.rows_since({} if reference is None else reference.ends),
            settings=self._settings.schedule,
            measure=lambda: self._drift(parent, reference),
        )

    def _drift(self, parent: str, reference: Reference | None) -> Drift:
        from model.release import release_recipe
        from model.schedule import measure_drift

        if reference is None:
            raise ValueError("drift is measured from a run, and there was none")
        store = ReleaseStore(self._settings.releases)
        return measure_drift(
            window(self._settings, self._now()),
            catalogue(open_store(self._settings)),
            release_recipe(store, parent),
            reference=reference,
            settings=self._settings.pairs,
            encode=self._vectors(store, parent),
            seed=1,
        )

    def _vectors(self, store: ReleaseStore, release_id: str) -> ReleaseVectors:
        """The live release's encoder, kept from one look to the next: few texts are new then."""
        from model.vectors import ReleaseVectors

        if self._encoder is None or self._encoder[0] != release_id:
            self._forget_encoder()
            made = ReleaseVectors(store.fetch(release_id), store.manifest(release_id), self._settings.model)
            self._encoder = release_id, made
        return self._encoder[1]

    def _forget_encoder(self) -> None:
        if self._encoder is not None:
            self._encoder[1].close()
            self._encoder = None

    def _archive(self) -> Archive:
        return Archive(Path(self._settings.archive.folder))

    def _reference(self) -> Reference | None:
        from model.schedule import Reference

        path = reference_file(self._settings)
        return Reference.model_validate_json(path.read_bytes()) if path.is_file() else None

    def _remember(self, decision: Decision) -> None:
        path = Path(self._settings.training.folder) / DECISIONS
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines()[1 - _KEPT_DECISIONS :] if path.is_file() else []
        aside = path.with_suffix(".tmp")
        aside.write_text("\n".join([*lines, decision.model_dump_json()]) + "\n")
        aside.replace(path)


def last_decisions(settings: Settings) -> dict[str, Any]:
    """The newest decision of the schedule, and the newest one to train; {} where it has not run."""
    path = Path(settings.training.folder) / DECISIONS
    if not path.is_file():
        return {}
    found = [json.loads(line) for line in path.read_text().splitlines()]
    trained = [one for one in found if one["train"]]
    return {"last": found[-1], **({"last to train": trained[-1]} if trained else {})}
