"""A search for a recipe, put together: archive, catalogue, live release, trials, a recipe file.

Reads   what app/learning.py reads
Writes  the archive, the search's folder, the recipe and the table of its trials
Never   trains beside another trainer; publishes nothing
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.archive import Archive
from adapters.releases import ReleaseStore
from app.learning import follow, in_words, live_release, prepared_for, the_only_trainer
from app.learning_inputs import catalogue
from app.settings import Settings
from app.wiring import open_store
from schemas.errors import Halt

if TYPE_CHECKING:
    from model.examples import Prepared
    from model.recipe import Recipe
    from model.search_space import Space
    from model.tuning import Found

log = logging.getLogger(__name__)


def tune(
    settings: Settings,
    data_dir: Path,
    *,
    recipe: Recipe,
    space: Space,
    trials: int,
    seconds: float | None,
    say: Callable[[str], None],
    anew: bool = False,
    parent: str | None = None,
) -> Found:
    """Search until there are `trials`, or no further one after `seconds`; one that was stopped goes on.

    The parent is the live release, if none is named. Raises Halt while another trainer runs, or where there
    is nothing to learn from or to validate by.
    """
    from model.tuning import TrialRuns, kept_in, search, search_folder

    with the_only_trainer(settings):
        start = parent or live_release(settings, data_dir)
        searches = Path(settings.training.folder) / "searches"
        searches.mkdir(parents=True, exist_ok=True)

        def prepare() -> Mapping[float, Prepared]:
            say(in_words(follow(settings)))
            return _examples(settings, data_dir, parent=start, recipe=recipe, space=space)

        folder, new = search_folder(
            searches,
            parent=start,
            recipe=recipe,
            space=space,
            prepare=prepare,
            created_at=datetime.now(UTC),
            anew=anew,
        )
        say(
            f"searching from {start}, in {folder}"
            if new
            else f"going on with the search in {folder}, on the examples of then (--anew begins another)"
        )
        store = ReleaseStore(settings.releases)
        runs = TrialRuns(
            folder,
            parent=store.manifest(start),
            parent_folder=store.fetch(start),
            settings=settings.model,
        )
        try:
            return search(
                kept_in(folder / "trials.sqlite"),
                recipe=recipe,
                space=space,
                rate=runs,
                trials=trials,
                seconds=seconds,
                say=say,
            )
        finally:
            runs.close()


def _examples(
    settings: Settings, data_dir: Path, *, parent: str, recipe: Recipe, space: Space
) -> dict[float, Prepared]:
    """What trials learn from, by their share of old pairs; all are rated by the same validation queries."""
    from model.release import release_recipe
    from model.search_space import replays, with_changes

    recent = Archive(Path(settings.archive.folder)).recent()
    items = catalogue(open_store(settings))
    texts = release_recipe(ReleaseStore(settings.releases), parent)
    found = {
        share: prepared_for(
            settings,
            data_dir,
            parent=parent,
            recipe=with_changes(recipe, {"replay": share}),
            recent=recent,
            items=items,
            texts=texts,
        )
        for share in replays(space, recipe)
    }
    validation = found[recipe.replay].validation
    if validation is None:
        raise Halt("there are too few sessions to rate a recipe by: wait for more events")
    return {share: prepared._replace(validation=validation) for share, prepared in found.items()}
