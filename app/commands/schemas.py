"""`simstream schemas`: JSON Schemas of the events, the AsyncAPI document, the OpenAPI document.

Reads   nothing but the code and the settings' topic names
Writes  the folder
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.settings import load_settings
from schemas.export import write_documents


def register(app: typer.Typer) -> None:
    """Add the command."""
    schemas = typer.Typer(help="The contract for producers in any language.", no_args_is_help=True)
    schemas.callback()(_schemas)
    schemas.command("export")(export)
    schemas.command("openapi")(openapi)
    app.add_typer(schemas, name="schemas")


def _schemas() -> None:
    """The contract for producers in any language."""


def export(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Made if need be; files of the same name are replaced.")
    ],
) -> None:
    """Write one JSON Schema per event, and asyncapi.json with the topics as they are set."""
    for path in write_documents(folder, load_settings().named_topics()):
        print(path)


def openapi(file: Annotated[Path, typer.Argument(metavar="FILE", help="Written anew.")]) -> None:
    """Write the API's OpenAPI document, as the service answers it at /openapi.json without keys."""
    # The service is imported by whoever asks for it.
    from service.document import document

    file.write_text(document())
    print(file)
