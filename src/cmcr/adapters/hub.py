"""A connection on the model hub: pushed with a card that people can read, its parents by reference, never copied.

`cmcr.load("owner/name")` reads it. The files are those of `Connection.save`: safetensors and JSON, hashed.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from cmcr.adapters.model_card import card_of, parents_of, read_results
from cmcr.connection.connection import Connection
from cmcr.errors import CmcrError, ConfigError, WriteError
from cmcr.spaces.hub import import_library

_TAGS = ("cmcr", "contrastive", "multimodal", "embeddings", "feature-extraction")


def push_to_hub(
    connection: Connection,
    name: str,
    private: bool | None,
    token: str | None,
    results: str | Path | Sequence[str | Path],
    license: str | None,
    parent_licenses: Mapping[str, str],
) -> str:
    """Push a connection to the hub (see `Connection.push_to_hub`)."""
    hub, errors = import_library("huggingface_hub"), import_library("huggingface_hub.errors")
    httpx = import_library("httpx")
    measured = read_results([results] if isinstance(results, str | Path) else results, connection)
    licences = {**_stated_licences(hub, connection, token), **parent_licenses}
    parents = parents_of(connection, licences)
    metadata = hub.ModelCardData(
        library_name="cmcr",
        license=license,
        tags=[*_TAGS, "model_hub_mixin"],
        base_model=[parent.model for parent in parents if parent.published] or None,
    )
    text = card_of(connection, name, results=measured, licences=licences)

    class Pushed(hub.ModelHubMixin):  # type: ignore[misc, name-defined]  # of a library that is imported late
        """A connection as the hub's client takes it: written by `Connection.save`, under the card made above."""

        _hub_mixin_config: ClassVar[dict[str, Any]] = {}  # config.json is ours, None would have the mixin write its own

        def _save_pretrained(self, save_directory: Path) -> None:
            connection.save(save_directory)
            (save_directory / "README.md").unlink()

        def generate_model_card(self, *args: object, **kwargs: object) -> Any:
            return hub.ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{text}")

    try:
        url = Pushed().push_to_hub(name, private=private, token=token, commit_message="Push a connection with cmcr")
    except CmcrError:  # some are OSErrors too: told already
        raise
    except errors.HFValidationError as error:
        raise ConfigError(f"{name!r} is not the name of a repository: expected 'owner/name'.") from error
    except (httpx.HTTPError, OSError) as error:  # refused, or out of reach
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WriteError(
            errno.EIO,
            f"could not be pushed ({said}). Check the network and the name, and log in by: hf auth login, or pass token=",
            name,
        ) from error
    return str(url)


def _stated_licences(hub: Any, connection: Connection, token: str | None) -> dict[str, str]:
    """Look up what the parents' own cards on the hub say of their licence."""
    api, found = hub.HfApi(token=token), {}
    for parent in parents_of(connection, {}):
        if parent.published:
            try:
                card = api.model_info(parent.model, revision=parent.revision).card_data
            except Exception:  # a card out of reach must not keep the connection from being pushed
                continue
            if card is not None and card.get("license"):
                found[parent.space] = str(card["license"])
    return found
