"""Readers of checkpoints: all formats give one kind of lazy leaf.

``door.open_path`` finds the files (``folders/files``), tells each format by its
first bytes (``foreign``), and has it opened: ``safetensors``, ``torch``,
``formats`` (NPZ, GGUF, msgpack of Flax). Orbax has its own folders (``orbax``).
A leaf is a ``stored.Fetch``: a range of bytes of a ``file_bytes.FileBytes``, or
a function that reads the array; small ``neighbours`` are read together.
"""
