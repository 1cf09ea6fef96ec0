"""app/settings.py: names, values, secrets, and errors that say which variable and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.settings import HIDDEN, InvalidSettings, load_settings, shown, variables


def test_without_any_variable_the_documented_defaults_hold() -> None:
    settings = load_settings({})
    assert settings.redis.url == "redis://127.0.0.1:6379/0"
    assert settings.namespace == ""


def test_a_variable_sets_its_field_and_foreign_variables_are_left_alone() -> None:
    settings = load_settings(
        {"SIMSTREAM_REDIS__URL": "redis://store:6379/1", "PATH": "/bin", "REDIS_URL": "x"}
    )
    assert settings.redis.url == "redis://store:6379/1"


def test_an_unknown_variable_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InvalidSettings, match=r"SIMSTREAM_REDIS__ULR is not a setting.*SIMSTREAM_REDIS__URL"):
        load_settings({"SIMSTREAM_REDIS__ULR": "redis://store"})


def test_a_whole_section_in_one_variable_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="SIMSTREAM_REDIS is not a setting"):
        load_settings({"SIMSTREAM_REDIS": "redis://store"})


def test_a_wrong_value_names_its_variable_and_what_was_expected() -> None:
    with pytest.raises(InvalidSettings, match=r"SIMSTREAM_REDIS__TIMEOUT_SECONDS: .*number.*'soon'"):
        load_settings({"SIMSTREAM_REDIS__TIMEOUT_SECONDS": "soon"})


def test_every_wrong_variable_is_named_at_once() -> None:
    with pytest.raises(InvalidSettings) as caught:
        load_settings({"SIMSTREAM_NOPE": "1", "SIMSTREAM_REDIS__NOPE": "1"})
    assert "SIMSTREAM_NOPE" in str(caught.value)
    assert "SIMSTREAM_REDIS__NOPE" in str(caught.value)


def test_the_namespace_prefixes_every_topic() -> None:
    topics = load_settings({"SIMSTREAM_NAMESPACE": "shop1."}).named_topics()
    assert all(topic.name.startswith("shop1.") for topic in topics.declared())


def test_a_topic_name_is_a_setting() -> None:
    topics = load_settings({"SIMSTREAM_TOPICS__PRODUCTS": "shop.products"}).named_topics()
    assert topics.products.name == "shop.products"
    assert topics.products.dead_letters == "shop.products.dlq"


def test_a_password_inside_a_url_is_never_printed() -> None:
    settings = load_settings({"SIMSTREAM_REDIS__URL": "redis://user:hunter2@store:6379/0"})
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)
    assert dict(shown(settings))["redis.url"] == f"redis://user:{HIDDEN}@store:6379/0"
    assert settings.redis.url == "redis://user:hunter2@store:6379/0"


def test_the_environment_wins_over_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text(
        "SIMSTREAM_NAMESPACE=file.\nSIMSTREAM_REDIS__URL=redis://file:1/0\nOTHER=1\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIMSTREAM_NAMESPACE", "env.")
    settings = load_settings()
    assert settings.namespace == "env."
    assert settings.redis.url == "redis://file:1/0"


def test_every_variable_is_listed_and_accepted_by_name() -> None:
    listed = variables()
    assert len(listed) == len(set(listed)) > 5
    for name in listed:
        with pytest.raises(InvalidSettings, match="is not a setting"):
            load_settings({name + "X": "1"})
