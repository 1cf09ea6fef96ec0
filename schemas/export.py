"""The contract for producers in any language: a JSON Schema per event, and one AsyncAPI 3.0 document.

Reads   the event models and the topics
Writes  documents, handed back as text; `write_documents` puts them into a folder
Never   edited by hand afterwards: tests/schemas/test_export.py keeps docs/schemas equal to the code

    simstream schemas export docs/schemas
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from schemas.events import EVENT_MODELS, Frozen
from schemas.topics import BULK_LANE, LANE_HEADER, Topic, Topics

ASYNCAPI_FILE = "asyncapi.json"
SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: Topics a shop writes; from the application's side, it receives them. All others it sends.
_RECEIVED = frozenset({"products", "reviews", "events"})
_MODELS: Mapping[str, type[Frozen]] = {model.__name__: model for model in EVENT_MODELS}


def event_schema(model: type[Frozen]) -> dict[str, Any]:
    """JSON Schema (2020-12) of one event as a producer writes it; `kind` is required, as on the topic."""
    schema = model.model_json_schema(mode="validation")
    if "kind" in schema.get("properties", {}):
        schema["required"] = ["kind", *(name for name in schema.get("required", []) if name != "kind")]
    return {"$schema": SCHEMA_DIALECT, **schema}


def asyncapi(topics: Topics) -> dict[str, Any]:
    """The AsyncAPI 3.0 document: a channel per topic with its key, an operation each, all messages.

    A topic whose records are not modelled as events (announcements, for example) has a message without
    a payload schema.
    """
    roles = {role: topic for role, topic in _by_role(topics).items()}
    carried = dict.fromkeys(name for topic in roles.values() for name in topic.carries)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "simstream",
            "version": "1.0.0",
            "description": "Similar items that are never stale: Kafka events in, fresh neighbours out. "
            "Events are JSON in UTF-8; unknown fields are ignored, times carry a zone.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {role: _channel(topic) for role, topic in roles.items()},
        "operations": {
            f"{'receive' if role in _RECEIVED else 'send'}_{role}": {
                "action": "receive" if role in _RECEIVED else "send",
                "channel": {"$ref": f"#/channels/{role}"},
                "messages": [{"$ref": f"#/channels/{role}/messages/{name}"} for name in topic.carries],
            }
            for role, topic in roles.items()
        },
        "components": {
            "messages": {
                name: _message(name, {topic.key for topic in roles.values() if name in topic.carries})
                for name in carried
            },
            "schemas": {
                name: _embedded(event_schema(_MODELS[name]), name) for name in carried if name in _MODELS
            },
        },
    }


def documents(topics: Topics | None = None) -> dict[str, bytes]:
    """Every document by file name, formatted, with a final line end."""
    files = {f"{_file_name(model)}.json": _text(event_schema(model)) for model in EVENT_MODELS}
    files[ASYNCAPI_FILE] = _text(asyncapi(topics or Topics.named()))
    return files


def write_documents(folder: Path, topics: Topics | None = None) -> list[Path]:
    """Write every document into `folder`, which is made if need be. Raises OSError where it cannot."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in documents(topics).items():
        path = folder / name
        path.write_bytes(text)
        written.append(path)
    return written


def _by_role(topics: Topics) -> dict[str, Topic]:
    """The topics in the order they are declared in, by role; dead letters are no contract of a producer's."""
    named = {role: getattr(topics, role) for role in topics.__dataclass_fields__}
    return {role: topic for role, topic in named.items() if isinstance(topic, Topic)}


def _channel(topic: Topic) -> dict[str, Any]:
    kept = "for ever" if topic.retention_ms < 0 else f"for {topic.retention_ms // 86_400_000} days"
    cleaned = (
        "Compacted: the last record of a key stays" if topic.cleanup == "compact" else f"Records stay {kept}"
    )
    return {
        "address": topic.name,
        "title": topic.name,
        "description": f"Key: {topic.key}, as UTF-8. {cleaned}."
        + (f" What cannot be applied goes to {topic.dead_letters}." if topic.has_dead_letters else ""),
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in topic.carries},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "topicConfiguration": {
                    "cleanup.policy": [topic.cleanup],
                    "retention.ms": topic.retention_ms,
                    "max.message.bytes": topic.max_message_bytes,
                    **(
                        {"delete.retention.ms": topic.delete_retention_ms}
                        if topic.delete_retention_ms is not None
                        else {}
                    ),
                },
                "bindingVersion": "0.5.0",
            }
        },
    }


def _message(name: str, keys: set[str]) -> dict[str, Any]:
    model = _MODELS.get(name)
    message: dict[str, Any] = {
        "name": name,
        "title": name,
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "properties": {
                LANE_HEADER: {
                    "type": "string",
                    "enum": [BULK_LANE],
                    "description": "Set on records of a large import: they never delay a live change.",
                }
            },
        },
        "bindings": {
            "kafka": {
                "key": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 256,
                    "description": " or ".join(sorted(keys)),
                },
                "bindingVersion": "0.5.0",
            }
        },
    }
    if model is not None:
        message["summary"] = (model.__doc__ or name).strip().splitlines()[0]
        message["payload"] = {"$ref": f"#/components/schemas/{name}"}
    return message


def _embedded(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """The schema inside a larger document: references start at the document's root, the dialect goes."""
    prefix = f"#/components/schemas/{name}/$defs/"
    return {key: _moved(value, prefix) for key, value in schema.items() if key != "$schema"}


def _moved(node: Any, prefix: str) -> Any:
    if isinstance(node, dict):
        return {
            key: value.replace("#/$defs/", prefix) if key == "$ref" else _moved(value, prefix)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [_moved(value, prefix) for value in node]
    return node


def _file_name(model: type[Frozen]) -> str:
    """`ProductUpserted` -> `product_upserted`: the kind itself."""
    return str(model.model_fields["kind"].default)


def _text(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
