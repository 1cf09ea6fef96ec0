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
    settings = load_settings({"SIMSTREAM_REDIS__URL": "rediss://store/0?ssl_ca_certs=/ca&password=hunter2"})
    assert dict(shown(settings))["redis.url"] == f"rediss://store/0?ssl_ca_certs=/ca&password={HIDDEN}"


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


def test_a_setting_is_read_from_the_file_that_its_name_with_file_names(tmp_path: Path) -> None:
    secret = tmp_path / "redis-url"
    secret.write_text("redis://:hunter2@store:6379/0\n")
    origins = tmp_path / "origins"
    origins.write_text("https://a.example.com\n\nhttps://b.example.com\n")
    settings = load_settings(
        {
            "SIMSTREAM_REDIS__URL_FILE": str(secret),
            "SIMSTREAM_SERVICE__IMAGE_ORIGINS_FILE": str(origins),
        }
    )
    assert settings.redis.url == "redis://:hunter2@store:6379/0"
    assert settings.service.image_origins == ("https://a.example.com", "https://b.example.com")
    assert "hunter2" not in str(settings)


def test_a_file_that_is_not_there_or_stands_beside_the_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"SIMSTREAM_REDIS__URL_FILE: cannot read .*No such file"):
        load_settings({"SIMSTREAM_REDIS__URL_FILE": str(tmp_path / "nothing")})
    with pytest.raises(InvalidSettings, match="both set"):
        load_settings({"SIMSTREAM_REDIS__URL_FILE": "x", "SIMSTREAM_REDIS__URL": "redis://store"})
    with pytest.raises(InvalidSettings, match="both set") as caught:
        load_settings({"SIMSTREAM_API__KEYS_FILE": "x", "SIMSTREAM_API__KEYS": f"shop:read:{'7' * 64}"})
    assert "777" not in str(caught.value)
    with pytest.raises(InvalidSettings, match=r"NOPE_FILE.* is not a setting|cannot read"):
        load_settings({"SIMSTREAM_NOPE_FILE": "x"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SIMSTREAM_API__KEYS", "shop:read:hunter2"),
        ("SIMSTREAM_API__KEYS", '["hunter2", 1]'),
        ("SIMSTREAM_KAFKA__OPTIONS", '{"sasl.password": "hunter2", "acks": "1"}'),
        ("SIMSTREAM_KAFKA__OPTIONS", '{"sasl.password": "hunter2"'),
        ("SIMSTREAM_KAFKA__OPTIONS", '["hunter2"]'),
        ("SIMSTREAM_QDRANT__API_KEY", '["hunter2"'),
    ],
)
def test_a_wrong_secret_is_not_repeated(name: str, value: str) -> None:
    try:
        said = str(load_settings({name: value}))
    except InvalidSettings as error:
        said = str(error)
        assert name in said
    assert "hunter2" not in said
