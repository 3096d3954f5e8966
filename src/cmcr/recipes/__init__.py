"""Recipes: a TOML file that goes from folders of raw data to a table of figures, and on with it wherever it was stopped."""
