"""Builders of layers, by what the layers do."""
