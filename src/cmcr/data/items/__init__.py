"""Lists of items to embed, walked without ever being held: folders, patterns, lists in files, tar shards, single files.

`open_items` (opening) says which of three lists it is: `FileItems` (files: one item each), `ListedItems` (listed: lines, CSV,
JSONL and Parquet, one item a row) or `ShardItems` (shards: members of tar files). Each can be walked and surveyed as often as
one likes.
"""

from cmcr.data.items.item import Item, ItemList
from cmcr.data.items.opening import open_items
from cmcr.data.items.survey import Survey

__all__ = ["Item", "ItemList", "Survey", "open_items"]
