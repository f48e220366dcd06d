"""Windows of bytes of several domains, for training and held out."""

import hashlib
import itertools
import pathlib
import tempfile
from typing import NamedTuple

import ml_collections
import numpy as np

from experiments._run import checks
from experiments._shared.texts import embedded
from wsl import data

EMBEDDED = 'python'
# Consecutive windows of a block are in one split; of ten blocks, one is for
# validation and one for the test.
BLOCK = 16
_OF_TEN = {'validation': 4, 'test': 9}


class Corpus(NamedTuple):
  """Windows of S + 1 bytes of D domains.

  Attributes:
    names: of the domains.
    train: windows of all domains, ``[W, S + 1]``, uint8.
    rows: places in ``train`` of each domain, ``[D, R]``; those of smaller
      domains are repeated.
    validation: ``[D, K, S + 1]``.
    test: the same.
    texts: number of bytes and SHA-256 by domain.
  """

  names: tuple[str, ...]
  train: np.ndarray
  rows: np.ndarray
  validation: np.ndarray
  test: np.ndarray
  texts: dict[str, dict[str, int | str]]


def load(config: ml_collections.ConfigDict) -> Corpus:
  """Reads the domains and splits them.

  Args:
    config: ``data``, ``domains``, ``length`` S, ``bytes`` of a domain at most,
      and ``evaluation.windows`` K.

  Returns:
    The corpus.

  Raises:
    FileNotFoundError: if there is no such text.
    ValueError: if there are fewer than two domains, or a text is too short.
  """
  if config.data == EMBEDDED:
    with tempfile.TemporaryDirectory() as folder:
      for name, text in embedded.TEXTS.items():
        if name in config.domains:
          file = pathlib.Path(folder) / f'{name}.txt'
          file.write_text(text(), encoding='utf-8')
      return _load(config, pathlib.Path(folder))
  return _load(config, pathlib.Path(config.data))


def _load(config: ml_collections.ConfigDict, folder: pathlib.Path) -> Corpus:
  """Reads and splits the texts in a folder."""
  if not folder.is_dir():
    raise FileNotFoundError(
      f"no data at {folder}: give a folder of texts, or '{EMBEDDED}', by "
      '--config.data='
    )
  there = {
    path.stem: path
    for path in sorted(folder.iterdir())
    if path.suffix == '.txt' or any(path.glob('*.txt'))
  }
  names = tuple(config.domains) or tuple(there)
  if len(names) < 2:
    raise ValueError(f'domains={names}: expected two or more')
  checks.choices('domains', names, there)
  count = config.evaluation.windows
  parts = {n: _split(n, there[n], config, count) for n in names}
  most = max(len(part['train']) for part in parts.values())
  first = np.cumsum([0, *(len(part['train']) for part in parts.values())])
  rows = [
    np.resize(np.arange(a, b), most) for a, b in itertools.pairwise(first)
  ]
  joined = lambda split: [part[split] for part in parts.values()]
  return Corpus(
    names,
    np.concatenate(joined('train')),
    np.stack(rows).astype(np.int32),
    np.stack(joined('validation')),
    np.stack(joined('test')),
    {name: _describe(there[name]) for name in names},
  )


def _split(
  name: str, path: pathlib.Path, config: ml_collections.ConfigDict, count: int
) -> dict[str, np.ndarray]:
  """Cuts a text into blocks of windows, and deals them to the splits."""
  windows = data.text(path, length=config.length)
  blocks = len(windows) // BLOCK
  # Blocks from all over the text, as many as the limit allows.
  most = max(config.bytes // (config.length * BLOCK), 1)
  chosen = _spread(blocks, min(blocks, most))
  windows = windows[: blocks * BLOCK].reshape(blocks, BLOCK, -1)[chosen]
  place = np.arange(len(windows)) % 10
  found = {}
  for split, tenth in _OF_TEN.items():
    held = windows[place == tenth].reshape(-1, windows.shape[-1])
    if len(held) < count:
      raise ValueError(
        f"domain '{name}' holds out {len(held)} windows, fewer than "
        f'evaluation.windows={count}: give more text, or more bytes of it'
      )
    found[split] = held[_spread(len(held), count)]
  kept = ~np.isin(place, list(_OF_TEN.values()))
  found['train'] = windows[kept].reshape(-1, windows.shape[-1])
  return found


def _spread(length: int, count: int) -> np.ndarray:
  """Returns ``count`` different indices, evenly spaced in ``length``."""
  return np.arange(count) * length // count


def _describe(path: pathlib.Path) -> dict[str, int | str]:
  """Returns the size and hash of a text."""
  files = sorted(path.glob('*.txt')) if path.is_dir() else [path]
  raw = b''.join(file.read_bytes() for file in files)
  return {'bytes': len(raw), 'sha256': hashlib.sha256(raw).hexdigest()}
