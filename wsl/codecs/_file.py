"""One file of safetensors for a pack, with a header that says what it is."""

from collections.abc import Callable
import os

import numpy as np

from wsl import checkpoint, merge, tree
from wsl.codecs import _layout, _packed


def save(
  path: str | os.PathLike[str],
  packed: _packed.Packed,
  *,
  checksums: bool = False,
  progress: Callable[[str, int, int], None] | None = None,
) -> None:
  """Saves a pack as one safetensors file: at once, or not at all.

  The metadata of the file name the codec and the version of the format, as in
  ``compeft 1``. Arrays of fewer than 64 KiB share one tensor, as the header
  would be larger than they are. Leaves on demand are computed one after the
  other.

  Args:
    path: ``NAME.safetensors``.
    packed: of any codec.
    checksums: whether the SHA-256 of each tensor is recorded, which ``load``
      verifies.
    progress: as in ``checkpoint.save``.

  Raises:
    ValueError: if ``packed`` is no pack, ``path`` no name of a safetensors
      file, or a value is not finite.
    OSError: as ``checkpoint.save``.

  Example:
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from wsl import codecs, tree
    >>> file = pathlib.Path(tempfile.mkdtemp(), 'a.safetensors')
    >>> delta = {'w': np.asarray([1.0, -4.0], np.float32)}
    >>> codecs.save(file, codecs.compeft(delta, density=0.5, scale='mean'))
    >>> tree.read(codecs.decode(codecs.load(file)))['w'].tolist()
    [0.0, -4.0]
  """
  if not str(path).endswith('.safetensors'):
    raise ValueError(f"save: {path} has to end with '.safetensors': rename it")
  _packed.check('save', packed)
  tensors, metadata = _layout.layout(packed)
  checkpoint.save(
    path, tensors, metadata=metadata, checksums=checksums, progress=progress
  )


def load(path: str | os.PathLike[str], *, lazy: bool = False) -> _packed.Packed:
  """Loads a pack that ``codecs.save`` has written.

  Args:
    path: the file.
    lazy: whether arrays of at least 64 KiB are on demand: then ``decode`` reads
      a leaf's codes from the file when the leaf is read.

  Returns:
    The pack, equal to the saved one.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the file is truncated or damaged, no pack, or of another
      version.

  Example:
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from wsl import codecs
    >>> file = pathlib.Path(tempfile.mkdtemp(), 'a.safetensors')
    >>> codecs.save(file, codecs.compeft({'w': np.ones(2)}, density=0.5))
    >>> codecs.load(file, lazy=True).codec
    'compeft'
  """
  notes = checkpoint.metadata(path)
  codec, _, version = notes.get(_layout.CODEC, '').partition(' ')
  if _layout.TREE not in notes or not version:
    raise ValueError(
      f'load: {path} is no pack of wsl.codecs: checkpoint.load reads models'
    )
  if version != str(_layout.VERSION):
    raise ValueError(
      f'load: {path} is of version {version[:20]} of wsl.codecs, this wsl '
      f'reads {_layout.VERSION}: update wsl, or save it again'
    )
  tensors = checkpoint.load(path, lazy=True)
  if not lazy:
    tensors = tree.read(tensors)
  try:
    small = np.asarray(tree.read(tensors[_layout.SMALL]))
    leaves = _layout.rebuild(notes[_layout.TREE], tensors, small)
    if codec in ('tall_masks', 'emr'):
      leaves = merge.TallMasks(**leaves)
  except _layout.DAMAGES as error:
    what = ' '.join(repr(error).split())[:60]
    raise ValueError(
      f'load: {path} is damaged, copy it again: its record is wrong, {what}'
    ) from None
  return _packed.Packed(leaves, codec)
