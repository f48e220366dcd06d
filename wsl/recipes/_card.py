"""The card of a merged model, and what it says about the inputs."""

from collections.abc import Mapping, Sequence
import hashlib
import importlib.metadata
import pathlib
from typing import Any, NamedTuple

import yaml

from wsl.recipes import _folder, _recipe

FILE = 'README.md'
# Files of tensors, whose hashes the card states.
_TENSORS = ('.safetensors', '.bin', '.pt', '.pth', '.npz', '.msgpack', '.gguf')


class CardEntry(NamedTuple):
  """A model that was merged, as the card lists it.

  Attributes:
    name: its reference in the recipe.
    licence: that its own card states, or ``'unknown'``.
    tensors: their number.
    digest: the SHA-256 of its files, or empty.
  """

  name: str
  licence: str
  tensors: int
  digest: str


def describe_inputs(
  folders: Mapping[_recipe.Model, _folder.Folder], *, hashes: bool = False
) -> list[CardEntry]:
  r"""Describes the models of a merge: licence, number of tensors, hash.

  Args:
    folders: the models, by reference.
    hashes: whether their files are read once more for their SHA-256.

  Returns:
    A description of each model.

  Raises:
    OSError: if a file cannot be read.

  Example:
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from wsl import checkpoint, recipes
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> checkpoint.save(folder, {'w': np.ones(2)})
    >>> lines = '---', 'license: mit', '---'
    >>> _ = (folder / 'README.md').write_text('\n'.join(lines))
    >>> opened = recipes.open_all([recipes.Model('a')], {'a': str(folder)})
    >>> describe_inputs(opened)
    [CardEntry(name='a', licence='mit', tensors=1, digest='')]
  """
  return [_input(model, folder, hashes) for model, folder in folders.items()]


def text(
  name: str, recipe: _recipe.Recipe, source: str, inputs: Sequence[CardEntry]
) -> str:
  """Returns a model card: what was merged, how, and by which versions.

  Args:
    name: of the merged model.
    recipe: the recipe.
    source: the recipe as the user wrote it.
    inputs: the models.
  """
  licences = sorted({x.licence for x in inputs} - {'unknown'})
  front: dict[str, Any] = {'tags': ['merge', 'wsl']}
  front['base_model'] = [x.name for x in inputs]
  if len(licences) == 1 and all(x.licence == licences[0] for x in inputs):
    front['license'] = licences[0]
  rows = [
    f'| {x.name} | {x.licence} | {x.tensors} | `{x.digest}` |' for x in inputs
  ]
  versions = ', '.join(
    f'{package} {importlib.metadata.version(distribution)}'
    for package, distribution in (('wsl', 'weight-space-lab'), ('jax', 'jax'))
  )
  return '\n'.join(
    [
      f'---\n{yaml.safe_dump(front, sort_keys=False)}---',
      f'# {name}',
      '',
      f'A merge by `{recipe.method}`, made by {versions}.',
      '',
      '| input | licence | tensors | SHA-256 |',
      '|---|---|---|---|',
      *rows,
      '',
      'The recipe:',
      '',
      f'```yaml\n{source.strip()}\n```',
      '',
    ]
  )


def _input(
  model: _recipe.Model, folder: _folder.Folder, hashes: bool
) -> CardEntry:
  """Describes one input."""
  paths = [folder.path, *([folder.adapter] if folder.adapter else [])]
  digest = _digest(paths) if hashes else ''
  licence = _licence(folder.path)
  return CardEntry(str(model), licence, len(folder.params), digest)


def _digest(paths: Sequence[pathlib.Path]) -> str:
  """Returns the SHA-256 of the digests of tensor files, in order of names.

  A folder without such files, as Orbax writes it, counts with all its files.
  """
  found = hashlib.sha256()
  for path in paths:
    inside = [path] if path.is_file() else sorted(path.rglob('*'))
    files = [x for x in inside if x.is_file()]
    for file in [x for x in files if x.suffix in _TENSORS] or files:
      with file.open('rb') as stream:
        found.update(hashlib.file_digest(stream, 'sha256').digest())
  return found.hexdigest()


def _licence(path: pathlib.Path) -> str:
  """Returns the licence that the card of a model states, or 'unknown'."""
  card = _folder.beside(path) / FILE
  if not card.is_file():
    return 'unknown'
  parts = card.read_text(encoding='utf-8', errors='replace').split('---', 2)
  if len(parts) < 3 or parts[0].strip():
    return 'unknown'
  try:
    front = yaml.safe_load(parts[1])
  except yaml.YAMLError:
    return 'unknown'
  found = front.get('license') if isinstance(front, dict) else None
  return str(found) if found else 'unknown'
