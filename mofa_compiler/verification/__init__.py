"""Checks of what was promised exact, and measures of how far off the rest is."""
