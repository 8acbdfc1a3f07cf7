"""Readable source: a traced network written as Python classes that need no more than torch."""
