"""Anchors: examples that several encoders share as reference points."""

from collections.abc import Hashable, Iterable
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Anchors:
  """One encoder's features of the anchors, with the examples' ids.

  Attributes:
    features: ``[k, d]``, features of the k anchors.
    ids: k distinct ids, such as indices into a data set. They are static, so
      a mismatch between two encoders is found at trace time.
  """

  features: types.Array
  ids: tuple[Hashable, ...] = dataclasses.field(metadata={'static': True})


def anchors(
  features: types.ArrayLike, ids: Iterable[Hashable] | types.Array
) -> Anchors:
  """Pairs the features of anchor examples with their ids.

  Args:
    features: ``[k, d]``, floats; stored in float32 or wider.
    ids: k distinct ids: indices into a data set, keys or file names.

  Returns:
    The anchors of one encoder.

  Raises:
    ValueError: if features are not ``[k, d]``, if the number of ids is not k,
      or if an id is repeated.

  Example:
    >>> import jax.numpy as jnp
    >>> anchors(jnp.ones((2, 3)), [7, 40]).ids
    (7, 40)
  """
  x = jnp.asarray(features)
  names = tuple(np.asarray(ids).tolist() if hasattr(ids, 'dtype') else ids)
  if x.ndim != 2 or not len(x):
    raise ValueError(
      f'anchors: features are {list(x.shape)}, expected [k, d] with k >= 1'
    )
  if len(names) != len(x):
    raise ValueError(
      f'anchors: {len(x)} rows of features and {len(names)} ids: give one id '
      'for each row'
    )
  seen: set[Hashable] = set()
  for name in names:
    if name in seen:
      raise ValueError(
        f'anchors: id {name!r} is given twice: use each example once'
      )
    seen.add(name)
  return Anchors(tree.widen(x)[0], names)


def check_anchors(*each: Anchors) -> None:
  """Checks that encoders have the same anchors in the same order.

  Args:
    *each: the anchors of each encoder.

  Raises:
    ValueError: if two encoders differ; the message names the first place.

  Example:
    >>> import jax.numpy as jnp
    >>> one, two = (anchors(jnp.ones((2, 3)), ids) for ids in ('ab', 'ba'))
    >>> check_anchors(one, two)
    Traceback (most recent call last):
    ValueError: anchors differ: encoder 1 has 'b' at place 0, encoder 0 has 'a';
    they are the same examples in another order: take encoder 0's order
  """
  for i, other in enumerate(each[1:], 1):
    mine, theirs = each[0].ids, other.ids
    if mine == theirs:
      continue
    if len(mine) != len(theirs):
      raise ValueError(
        f'anchors differ: encoder {i} has {len(theirs)} of them, encoder 0 '
        f'has {len(mine)}: take the same examples for all encoders'
      )
    place = next(p for p in range(len(mine)) if mine[p] != theirs[p])
    remedy = (
      "they are the same examples in another order: take encoder 0's order"
      if set(mine) == set(theirs)
      else 'take the same examples for all encoders'
    )
    raise ValueError(
      f'anchors differ: encoder {i} has {theirs[place]!r} at place {place}, '
      f'encoder 0 has {mine[place]!r}; {remedy}'
    )
