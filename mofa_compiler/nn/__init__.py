"""Layers of rewritten networks: partial convolutions, modules with branches, GPU kernels."""
