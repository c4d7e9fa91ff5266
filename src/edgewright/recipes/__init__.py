"""Recipes: TOML files that name passes in order."""
