"""Text as byte tokens."""

import os
import pathlib

import numpy as np


def text(path: str | os.PathLike[str], *, length: int = 128) -> np.ndarray:
  """Cuts a text file into windows of bytes.

  Window i starts where the inputs of window i - 1 end, so ``w[:, :-1]`` are
  inputs and ``w[:, 1:]`` targets, and every byte but the first is a target
  once. Windows are in the order of the text: take the last ones for tests.

  Args:
    path: a text file, or a folder whose ``.txt`` files are joined by name.
    length: S, the number of input tokens of a window.

  Returns:
    Windows ``[N, S + 1]``, uint8; the tokens are 0 .. 255 and the last,
    incomplete window is dropped.

  Raises:
    FileNotFoundError: if there is no such file, or no ``.txt`` in the folder.
    ValueError: if the text is shorter than one window.

  Example:
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), 'a.txt')
    >>> _ = file.write_text('abcdefg')
    >>> [bytes(window) for window in text(file, length=3)]
    [b'abcd', b'defg']
  """
  if length < 1:
    raise ValueError(f'text(length={length}): expected 1 token or more')
  place = pathlib.Path(path)
  files = sorted(place.glob('*.txt')) if place.is_dir() else [place]
  if not files or not files[0].exists():
    raise FileNotFoundError(
      f'no text at {place}: expected a text file or a folder of .txt files; '
      'give another path'
    )
  raw = b''.join(file.read_bytes() for file in files)
  count = (len(raw) - 1) // length
  if count < 1:
    raise ValueError(
      f'{place} has {len(raw)} bytes, fewer than one window of {length + 1}: '
      f'take more text, or length <= {max(len(raw) - 1, 1)}'
    )
  rows = np.arange(count)[:, None] * length + np.arange(length + 1)[None]
  return np.frombuffer(raw, np.uint8)[rows]
