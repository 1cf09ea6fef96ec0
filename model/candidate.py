"""A run from examples to a candidate: train, check the files, judge, publish with the report in its manifest.

Reads   the parent's release; the run's folder, where a killed run left it
Writes  the run's folder; a candidate in the releases folder
Never   makes anything live, nor publishes files that are broken

1. prepare   examples are written into the run's folder, so that a resumed run learns from the same ones
2. train     checkpoints in the run's folder; weights when it is done
3. assemble  the parent's files with the new weights
4. refuse    NaN, wrong shapes, truncated files: the run ends with its reasons and publishes nothing
5. judge     candidate against parent, on the sets that were kept apart
6. report    one HTML page in the run's folder and among the candidate's files
7. publish   weights, report and verdict as one immutable release; the examples go

A trainer that slept while another took over stops before it publishes (`still_ours`).
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from adapters.metrics import GATE_VERDICTS_TOTAL
from adapters.releases import ReleaseStore, entry_of
from model.evaluation import ndcg_at, ranks_of
from model.examples import Prepared
from model.gate import judge, refuse_broken
from model.learning_settings import GateSettings
from model.mining import with_hard_negatives
from model.recipe import Recipe
from model.report import changed_most, render
from model.run_files import load_prepared, save_prepared
from model.run_folders import REFERENCE, RESULT, RUN, begun_at, drop_examples, has_examples, is_open
from model.settings import ModelSettings, UnusableModel
from model.training_together import train_together
from model.transfer import known_by
from model.vectors import ReleaseVectors
from schemas.items import digest
from schemas.releases import Manifest, Training, Verdict

if TYPE_CHECKING:
    from model.schedule import Reference

log = logging.getLogger(__name__)

REPORT = "report.html"
_VERSIONS = ("torch", "transformers", "sentence-transformers", "accelerate", "peft", "numpy", "simstream")


class Outcome(NamedTuple):
    """How a run ended. `manifest` is None where the candidate was broken and nothing was published."""

    verdict: Verdict
    manifest: Manifest | None


def new_run(
    runs: Path,
    *,
    parent: str,
    recipe: Recipe,
    prepared: Prepared,
    created_at: datetime,
    given: str = "",
    reference: Reference | None = None,
) -> Path:
    """Make a run's folder; it is there whole or not at all.

    `given` names what a person had a say in, beside the recipe, and `reference` is what the run sees.
    """
    name = f"{created_at:%Y%m%d-%H%M%S}-{digest(parent, recipe.model_dump(mode='json'))[:6]}"
    aside, folder = runs / f".{name}", runs / name
    aside.mkdir(parents=True)
    save_prepared(prepared, aside)
    if reference is not None:
        (aside / REFERENCE).write_text(reference.model_dump_json())
    told = {"parent": parent, "recipe": recipe.model_dump(mode="json"), "given": given}
    (aside / RUN).write_text(json.dumps(told, indent=1))
    return aside.rename(folder)


def open_run(
    runs: Path, *, parent: str, recipe: Recipe, given: str | None = None, since: datetime | None = None
) -> Path | None:
    """The newest run of this parent and recipe that has not ended and has its examples; None without one.

    With `given` only one that was given the same (an earlier version's run does not say, and is left), with
    `since` only one that was begun no earlier.
    """
    for folder in sorted(runs.glob("[!.]*"), reverse=True):
        if not is_open(folder) or not has_examples(folder):
            continue
        if since is not None and begun_at(folder) < since:
            continue
        told = json.loads((folder / RUN).read_bytes())
        # Fields that came later have their defaults in a run that was begun without them.
        with suppress(ValidationError):
            if told["parent"] != parent or Recipe.model_validate(told["recipe"]) != recipe:
                continue
            if given is None or told.get("given") == given:
                return folder
            log.warning("run_not_resumed folder=%s reason=%s", folder, "its examples were made otherwise")
    return None


def finish(
    run: Path,
    *,
    store: ReleaseStore,
    settings: ModelSettings,
    gate: GateSettings,
    created_at: datetime,
    processes: int = 1,
    still_ours: Callable[[], None] = lambda: None,
) -> Outcome:
    """Take a run from wherever it stands to its end, trained by so many processes of this machine.

    `still_ours` raises where the run is somebody else's by now: it is asked after each step of a single
    process, after training, and before publishing. Raises InvalidRecipe, UnusableModel, InvalidRelease,
    NoExamples, Halt where one of several processes dies.
    """
    told = json.loads((run / RUN).read_bytes())
    recipe, parent = Recipe.model_validate(told["recipe"]), store.manifest(told["parent"])
    parent_folder, prepared = store.fetch(parent.release_id), load_prepared(run)
    live = ReleaseVectors(parent_folder, parent, settings)
    try:
        training = _trained(
            run,
            recipe,
            parent,
            parent_folder,
            prepared,
            live,
            settings,
            callbacks=[_asking(still_ours)] if processes == 1 else (),
            processes=processes,
        )
        still_ours()
        candidate = _assembled(run, recipe, parent, parent_folder)
        reasons = refuse_broken(candidate, parent_folder, layers=len(recipe.layers) or None)
        if reasons:
            return _broken(run, parent, training, reasons)
        slug = parent.release_id.rpartition("-")[0] or parent.release_id
        contents = {name: entry_of(candidate / name).sha256 for name in _names(candidate)}
        release_id = f"{slug[:40]}-{digest(contents, training.model_dump(mode='json'))}"
        kin = _shaped(parent, recipe)
        new = ReleaseVectors(candidate, kin, settings)
        try:
            verdict = judge(
                prepared.sets,
                live=live,
                candidate=new,
                settings=gate,
                seed=recipe.seed,
                dimension=kin.dimension,
                exposure=prepared.exposure,
            )
            texts = [text for one in prepared.sets[:1] for text in one.texts]
            page = render(
                run=run.name,
                parent=parent.release_id,
                verdict=verdict,
                training=training,
                changed=changed_most(texts, before=live, after=new),
                line=known_by(store.line(parent.release_id), newest=(release_id, verdict)),
            )
        except UnusableModel as error:
            return _broken(run, parent, training, [str(error)])
        finally:
            new.close()
    finally:
        live.close()
    still_ours()
    # Not part of the id, so that a run that is killed about here publishes no second release.
    for folder in (run, candidate):
        (folder / REPORT).write_text(page, encoding="utf-8")
    files = {name: entry_of(candidate / name) for name in _names(candidate)}
    manifest = Manifest(
        release_id=release_id,
        created_at=created_at,
        base_model=parent.base_model,
        parent=parent.release_id,
        dimension=kin.dimension,
        encoder=kin.encoder,
        text=parent.text,
        files=files,
        figures={
            f"{figure.name}, {side}": value
            for figure in verdict.figures
            if not figure.slice
            for side, value in (("before", figure.before), ("after", figure.after))
        },
        training=training,
        verdict=verdict,
    )
    standing = (
        store.manifest(manifest.release_id)
        if manifest.release_id in store.list()
        else store.publish(candidate, manifest)
    )
    GATE_VERDICTS_TOTAL.labels(result="passed" if verdict.passed else "refused").inc()
    log.info("candidate_published release=%s passed=%s", standing.release_id, verdict.passed)
    return _ended(run, Outcome(standing.verdict or verdict, standing))


def rated_by_validation(
    run: Path,
    *,
    recipe: Recipe,
    parent: Manifest,
    parent_folder: Path,
    prepared: Prepared,
    live: ReleaseVectors,
    settings: ModelSettings,
    callbacks: Sequence[Any] = (),
) -> float:
    """Train in `run`, and publish nothing: ndcg@10 of the validation queries, 0 where the files are broken.

    `callbacks` are the library trainer's. Raises InvalidRecipe, and ValueError without validation queries.
    """
    if prepared.validation is None:
        raise ValueError("there are no validation queries to rate a recipe by")
    _trained(run, recipe, parent, parent_folder, prepared, live, settings, callbacks=callbacks)
    candidate = _assembled(run, recipe, parent, parent_folder)
    if refuse_broken(candidate, parent_folder, layers=len(recipe.layers) or None):
        return 0.0
    vectors = ReleaseVectors(candidate, _shaped(parent, recipe), settings)
    try:
        found = vectors(list(prepared.validation.texts))
    except UnusableModel:
        return 0.0
    finally:
        vectors.close()
    ranks = ranks_of(found, prepared.validation.queries, prepared.validation.targets)
    return float(ndcg_at(ranks, 10).mean())


def _broken(run: Path, parent: Manifest, training: Training, reasons: list[str]) -> Outcome:
    """The end of a run whose candidate is not even measured."""
    GATE_VERDICTS_TOTAL.labels(result="broken").inc()
    verdict = Verdict(passed=False, reasons=reasons)
    page = render(run=run.name, parent=parent.release_id, verdict=verdict, training=training)
    (run / REPORT).write_text(page, encoding="utf-8")
    return _ended(run, Outcome(verdict, None))


def _trained(
    run: Path,
    recipe: Recipe,
    parent: Manifest,
    parent_folder: Path,
    prepared: Prepared,
    live: ReleaseVectors,
    settings: ModelSettings,
    *,
    callbacks: Sequence[Any] = (),
    processes: int = 1,
) -> Training:
    """Train, unless a run that was killed later than that has already; how it went."""
    report = run / "training.json"
    if report.is_file():
        return Training.model_validate_json(report.read_bytes())
    from model.tasks import ANCHORS, Examples
    from model.training import train

    pairs = prepared.pairs
    if recipe.hard_negatives and pairs.negatives is None:
        pairs = with_hard_negatives(
            pairs, live(list(pairs.texts)), count=recipe.hard_negatives, seed=recipe.seed
        )
    tables: dict[str, Mapping[str, Sequence[object]]] = dict(prepared.tables)
    if recipe.distil:
        # A quarter as many anchors as pairs holds, and costs a tenth of the run; a student needs all.
        anchors = list(prepared.anchors if recipe.layers else prepared.anchors[: max(1, len(pairs) // 4)])
        tables[ANCHORS] = {"text": anchors, "label": live(anchors).tolist()}
    given: dict[str, Any] = {
        "folder": parent_folder,
        "config": parent.encoder,
        "examples": Examples(
            pairs=pairs,
            tables=tables,
            validation=prepared.validation,
            unlabelled=[*prepared.anchors, *pairs.texts],
        ),
        "recipe": recipe,
        "run": run,
        "device": settings.device,
    }
    if processes > 1:
        found = train_together(processes=processes, **given)
    else:
        found = train(callbacks=callbacks, **given)
    training = Training(
        run=run.name,
        recipe=recipe.model_dump(mode="json"),
        data={**prepared.counts, **prepared.ranges},
        versions={name: metadata.version(name) for name in _VERSIONS if _installed(name)},
        seconds=round(found.seconds, 1),
        steps=found.steps,
        curves=[dict(entry) for entry in found.curves],
    )
    aside = report.with_suffix(".tmp")
    aside.write_text(training.model_dump_json(indent=1))
    aside.replace(report)
    return training


def _shaped(parent: Manifest, recipe: Recipe) -> Manifest:
    """The parent's manifest with the vectors that the recipe makes."""
    if recipe.dimension is None:
        return parent
    return parent.model_copy(
        update={
            "dimension": recipe.dimension,
            "encoder": parent.encoder.model_copy(update={"dimension": recipe.dimension}),
        }
    )


def _assembled(run: Path, recipe: Recipe, parent: Manifest, parent_folder: Path) -> Path:
    """The parent's files with the run's weights in place of its own."""
    folder = run / "candidate"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in parent.files:
        if name != REPORT and not name.endswith((".safetensors", ".safetensors.index.json")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(parent_folder / name, folder / name)
    for path in (run / "weights").glob("*.safetensors*"):
        shutil.copyfile(path, folder / path.name)
    if recipe.layers:
        config = json.loads((folder / "config.json").read_bytes())
        config["num_hidden_layers"] = len(recipe.layers)
        (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


def _ended(run: Path, outcome: Outcome) -> Outcome:
    """Write down how it ended; weights live on in the release alone, and examples nowhere."""
    body = {
        "release_id": outcome.manifest.release_id if outcome.manifest is not None else None,
        "verdict": outcome.verdict.model_dump(mode="json"),
    }
    (run / RESULT).write_text(json.dumps(body, indent=1))
    drop_examples(run)
    for name in ("weights", "candidate"):
        shutil.rmtree(run / name, ignore_errors=True)
    return outcome


def _asking(still_ours: Callable[[], None]) -> Any:
    """A callback of the library's trainer that asks after each step, so before it writes a checkpoint."""
    from transformers import TrainerCallback

    class Asking(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            still_ours()

    return Asking()


def _names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
