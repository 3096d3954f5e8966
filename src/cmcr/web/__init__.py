"""The page and its JSON API over an index, on loopback."""
