"""Frozen records of what a roadmap did to a network."""
