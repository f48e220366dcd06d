"""A compressed task vector, or family of them."""

import dataclasses
import functools
from typing import Any

import jax

from wsl import tree, types


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=('leaves',),
  meta_fields=('codec',),
)
@dataclasses.dataclass(frozen=True)
class Packed:
  """The tree of a task vector, whose leaves are compressed.

  A leaf is of ``Ternary``, ``Bits``, ``SignBlocks`` or ``Codes``, each a pytree
  of arrays; or an array that is stored as it is. ``decode`` returns the task
  vector, ``size`` the bits, and ``save`` writes a file.

  Attributes:
    leaves: the tree.
    codec: the function that made it, such as ``'compeft'``.

  Example:
    >>> import numpy as np
    >>> from wsl import codecs
    >>> delta = {'w': np.asarray([1.0, -4.0], np.float32)}
    >>> packed = codecs.compeft(delta, density=0.5)
    >>> packed.codec, type(packed.leaves['w']).__name__
    ('compeft', 'Ternary')
  """

  leaves: types.Tree
  codec: str


def check_known(function: str, delta: types.Delta) -> None:
  """Checks that leaves are arrays that are not traced, naming one."""
  for name, leaf in tree.named(delta).items():
    if tree.is_traced(leaf):
      raise ValueError(
        f"{function}: leaf '{name}' is traced, but the host encodes: call it "
        'outside of jit'
      )


def check(function: str, packed: Any) -> None:
  """Checks that an argument is a pack; task vectors are easily given."""
  if not isinstance(packed, Packed):
    raise ValueError(
      f'{function}: got a {type(packed).__name__}, expected a codecs.Packed, '
      'as compeft and the other codecs return'
    )
