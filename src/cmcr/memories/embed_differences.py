"""Which item differs between the list that a run began with and the list that it is given now."""

from __future__ import annotations

import json
from itertools import islice, zip_longest
from pathlib import Path

from cmcr.data.items import ItemList
from cmcr.errors import CmcrError
from cmcr.memories.layout import RUN, Shard, record
from cmcr.memories.memory import items_in, quarantine_in


def first_difference(folder: Path, items: ItemList) -> str:
    """Compare the ids in the finished shards of a run with those of a list, one shard in RAM at a time.

    Returns:
        a sentence; empty where no shard is finished or its files cannot be read.
    """
    walk, compared = iter(items.walk()), 0
    try:
        for shard in _finished(folder):
            if shard.first_item != compared:
                break
            given = (entry.id for entry in islice(walk, shard.items))
            for position, (was, now) in enumerate(zip_longest(_ids(folder, shard), given), start=compared):
                if was != now:
                    return (
                        f"The first item that differs is number {position + 1}: it was {was!r}, now {now or 'none'!r}."
                    )
            compared += shard.items
    except (OSError, ValueError, KeyError, TypeError, CmcrError):
        return ""
    return f"The ids of the first {compared} items are the same." if compared else ""


def _finished(folder: Path) -> list[Shard]:
    """Read the receipts of a run, in the order of their items."""
    receipts = [json.loads(path.read_bytes()) for path in (folder / RUN).glob("shard-*.json")]
    return sorted((record(Shard, receipt) for receipt in receipts), key=lambda shard: shard.first_item)


def _ids(folder: Path, shard: Shard) -> list[str]:
    """Bring the ids of a shard back into the order of the list, those in quarantine included."""
    waiting = {item.position - shard.first_item: item.id for item in quarantine_in(folder, shard)}
    rows = iter(items_in(folder, shard))
    return [waiting[place] if place in waiting else next(rows)[0] for place in range(shard.items)]
