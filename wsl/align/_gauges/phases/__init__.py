"""Phases: complex numbers that act on pairs of entries, as under RoPE."""
