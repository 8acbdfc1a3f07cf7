"""Bundles made and checked again: replay a recipe, verify a bundle."""
