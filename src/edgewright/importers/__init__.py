"""Importers: a file of another format becomes a Model."""
