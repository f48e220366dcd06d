"""Formats of one file: NPZ, GGUF, msgpack of Flax."""
