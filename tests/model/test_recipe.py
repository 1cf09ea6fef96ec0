"""model/recipe.py: a recipe is read whole or refused with the field that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.recipe import InvalidRecipe, Recipe, Task, read_recipe


def test_a_file_in_toml_or_json_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('method = "LORA"\nepochs = 2\n[[tasks]]\ndata = "pairs"\n')
    (tmp_path / "a.json").write_text('{"method": "LORA", "epochs": 2, "tasks": [{"data": "pairs"}]}')
    wanted = Recipe(method="LORA", epochs=2, tasks=(Task(data="pairs"),))
    assert read_recipe(tmp_path / "a.toml") == read_recipe(tmp_path / "a.json") == wanted
    assert read_recipe(None) == Recipe()


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("learnin_rate = 1e-5", "learnin_rate"),
        ("epochs = 0", "epochs"),
        ('method = "full"\n[peft]\nr = 8', "peft"),
        ('[[tasks]]\ndata = "pairs"\n[[tasks]]\ndata = "pairs"', "two tasks"),
        ("tasks = []", "at least one task"),
        ("epochs = = 1", "cannot be followed"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, body: str, named: str) -> None:
    (tmp_path / "recipe.toml").write_text(body)
    with pytest.raises(InvalidRecipe, match=named):
        read_recipe(tmp_path / "recipe.toml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecipe, match="nowhere"):
        read_recipe(tmp_path / "nowhere.toml")
