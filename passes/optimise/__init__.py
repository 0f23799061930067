"""Passes that change what a graph costs and never what it computes."""
