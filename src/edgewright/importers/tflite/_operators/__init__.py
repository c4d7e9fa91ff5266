"""Builders: one function for each TFLite operator, which adds its nodes."""
