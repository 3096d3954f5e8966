"""Lists of items to embed, walked and never held in memory: files, rows of tables and members of tar files.

`open_items` finds out which of three lists an input is: `FileItems` (each file is an item), `TableItems` (each line of a text
or row of a CSV, JSONL or Parquet file) or `TarItems` (each member of tar files). Any of them can be walked and surveyed
again and again.
"""

from cmcr.data.items.files import Selection, selection_of_pattern
from cmcr.data.items.item import Entry, ItemList, Survey, as_id
from cmcr.data.items.opening import open_items
from cmcr.data.items.tar_files import TarItems

__all__ = [
    "Entry",
    "ItemList",
    "Selection",
    "Survey",
    "TarItems",
    "as_id",
    "open_items",
    "selection_of_pattern",
]
