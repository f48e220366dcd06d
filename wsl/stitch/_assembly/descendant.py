"""RECONSTRUCTION of Learngene Pool: stitches between the distilled networks.

Which parts are from the paper is listed in ``learngene``.
"""

from collections.abc import Mapping, Sequence
import itertools

import jax.numpy as jnp

from wsl import deprecation, tree
from wsl.stitch import _adapter
from wsl.stitch._assembly import learngene
from wsl.stitch._routes import routing


def compose_maps(
  source: _adapter.Adapter, target: _adapter.Adapter
) -> _adapter.Adapter:
  r"""RECONSTRUCTION: composes two maps to common features into a stitch.

  .. math:: h_b = (h_a M_a + c_a - c_b) M_b^+

  The composition solves ``h_b M_b + c_b = h_a M_a + c_a`` for h_b by least
  squares. If the features of both networks are linear images of the common
  ones, and both maps invert them, it equals the least squares map from h_a to
  h_b.

  Args:
    source: weight M_a ``[d_a, D]`` and bias c_a (0 if ``None``).
    target: weight M_b ``[d_b, D]`` and bias c_b.

  Returns:
    The map from a's features to b's, with a weight ``[d_a, d_b]`` and a bias.

  Raises:
    ValueError: if a map has no weight, or the widths D differ.

  Example:
    >>> import jax.numpy as jnp
    >>> a, b = (_adapter.Adapter(s * jnp.eye(2)) for s in (6.0, 2.0))
    >>> compose_maps(a, b).weight.round(4).tolist()
    [[3.0, 0.0], [0.0, 3.0]]

  Reference:
    Shi et al., "Building Variable-sized Models via Learngene Pool", 2023,
    arXiv:2312.05743.
  """
  first, second = source.weight, target.weight
  if first is None or second is None or first.shape[1] != second.shape[1]:
    shapes = [None if w is None else list(w.shape) for w in (first, second)]
    raise ValueError(
      f'compose_maps: weights of shapes {shapes[0]} and {shapes[1]}: expected '
      '[d_a, D] and [d_b, D], maps to the same features'
    )
  dtype = first.dtype
  zero = jnp.zeros(first.shape[1], dtype)
  biases = (zero if x.bias is None else x.bias for x in (source, target))
  first, second, own, other = tree.widen(first, second, *biases)
  inverse = jnp.linalg.pinv(second)
  weight, bias = (tree.matmul(x, inverse) for x in (first, own - other))
  return _adapter.Adapter(weight.astype(dtype), bias.astype(dtype))


def build_descendant(
  pool: Mapping[str, learngene.Auxiliary], pieces: Sequence[routing.Piece]
) -> tuple[routing.Family, routing.Route]:
  """RECONSTRUCTION: builds a network of pool instances, from small to large.

  A stitch between two pieces is ``compose_maps`` of the maps at both positions.
  ``materialize`` turns the result into a network to fine-tune.

  Args:
    pool: the distilled networks by name.
    pieces: consecutive blocks of each network, narrower networks first.

  Returns:
    The family of the networks and the stitches, and the route through it.

  Raises:
    ValueError: if a piece is unknown, begins where there is no map, or is
      narrower than the one before; the message names it.

  Reference:
    Shi et al., "Building Variable-sized Models via Learngene Pool", 2023,
    arXiv:2312.05743.
  """
  adapters: dict[str, _adapter.Adapter] = {}
  names = []
  for i, (one, two) in enumerate(itertools.pairwise(pieces), 1):
    maps = []
    for piece, position in ((one, one.stop), (two, two.start)):
      own = pool[piece.model].maps if piece.model in pool else ()
      if not 1 <= position <= len(own):
        raise ValueError(
          f"build_descendant: piece {i} ('{two.model}' from {two.start}) joins "
          f"'{piece.model}' at {position}: it has maps at 1 .. {len(own)}"
        )
      maps.append(own[position - 1])
    stitch = compose_maps(*maps)
    assert stitch.weight is not None
    if stitch.weight.shape[0] > stitch.weight.shape[1]:
      raise ValueError(
        f"build_descendant: piece {i} ('{two.model}') is narrower than "
        f"'{one.model}': order instances from small to large"
      )
    names.append(f'{one.model}_{one.stop}_{two.model}_{two.start}')
    adapters[names[-1]] = stitch
  models = {name: member.model for name, member in pool.items()}
  family = routing.Family(models, adapters)
  return family, routing.Route(tuple(pieces), tuple(names))


distilled = deprecation.renamed('distilled', compose_maps)
descendant = deprecation.renamed('descendant', build_descendant)
