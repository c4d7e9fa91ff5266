"""Passes: a graph becomes a smaller or simpler graph."""
