"""Passes that put an explanation into a graph."""
