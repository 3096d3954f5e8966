"""Search any modality with any other: rows that can be searched, the item table, queries over a connection."""
