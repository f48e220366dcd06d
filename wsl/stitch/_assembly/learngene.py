"""Learngene Pool: small networks distilled from one, and what they build."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import types
from wsl.stitch import _adapter, _segmented
from wsl.stitch._assembly import m2m
from wsl.stitch._routes import routing


class Auxiliary(NamedTuple):
  """A small network and its maps to the network that it learns from.

  Attributes:
    model: d blocks; each is an instance of the pool.
    maps: for each block, from its output to the ancestor's features at the same
      relative depth.
  """

  model: _segmented.Segmented
  maps: tuple[_adapter.Adapter, ...]


def auxiliary(
  model: _segmented.Segmented,
  ancestor: _segmented.Segmented,
  inputs: Any,
  *,
  key: types.PRNGKey,
) -> Auxiliary:
  """Gives a small network random maps to an ancestor's features.

  Args:
    model: fewer blocks than the ancestor's or as many, or narrower ones.
    ancestor: the large, trained network.
    inputs: a batch, or its shapes, for the widths.
    key: of the maps; entries have variance 1 / d.

  Returns:
    The parameters that ``dense_distillation`` trains.

  Raises:
    ValueError: if the network is deeper than its ancestor.
  """
  if not 1 <= model.depth <= ancestor.depth:
    raise ValueError(
      f'auxiliary: {model.depth} blocks and an ancestor of {ancestor.depth}: '
      'expected at least one and not more than it has'
    )
  own, wanted = (
    jax.eval_shape(_segmented.features, m, inputs) for m in (model, ancestor)
  )
  maps = []
  for p in range(1, model.depth + 1):
    d, m = own[p].shape[-1], wanted[_counterpart(p, model, ancestor)].shape[-1]
    dtype = own[p].dtype if own[p].dtype.itemsize > 4 else jnp.float32
    weight = jax.random.normal(jax.random.fold_in(key, p), (d, m), dtype)
    maps.append(_adapter.Adapter(weight * d**-0.5, jnp.zeros(m, dtype)))
  return Auxiliary(model, tuple(maps))


def dense_distillation(
  ancestor: _segmented.Segmented,
  *,
  blocks: float = 1.0,
  temperature: float = 1.0,
) -> Callable[..., types.Array]:
  r"""Makes the loss that distils an ancestor into a small network.

  .. math:: L = T^2 \, \overline{\mathrm{KL}}(\mathrm{softmax}(y / T) \,\|\,
    \mathrm{softmax}(y' / T)) + \beta \frac{1}{d} \sum_{p=1}^{d}
    \overline{\| h'_p M_p + c_p - h_{\pi(p)} \|^2}, \quad \pi(p) =
    \mathrm{round}(p D / d)

  There is no public code: this is the paper's description. It also distils the
  outputs of self-attention; they are left out, since the positions of a
  segmented network lie between blocks. Which norms and weights the paper takes
  could not be read: the means are over all entries.

  Args:
    ancestor: the large network of D blocks; it is not trained.
    blocks: beta, the weight of the outputs of blocks.
    temperature: T.

  Returns:
    A loss ``(auxiliary, batch, key) -> scalar`` for ``train.advance``; batches
    are inputs, or (inputs, anything).

  Reference:
    Shi et al., "Building Variable-sized Models via Learngene Pool", 2023,
    arXiv:2312.05743.
  """
  return jax.tree_util.Partial(_Dense(blocks, temperature), ancestor)


@dataclasses.dataclass(frozen=True)
class _Dense:
  """The loss, with its weights."""

  blocks: float
  temperature: float

  def __call__(
    self,
    ancestor: _segmented.Segmented,
    learner: Auxiliary,
    batch: Any,
    key: types.PRNGKey,
  ) -> types.Array:
    del key
    inputs = batch[0] if isinstance(batch, tuple) else batch
    model, rate = learner.model, self.temperature
    wanted = jax.lax.stop_gradient(_segmented.features(ancestor, inputs))
    given = _segmented.features(model, inputs)
    logits = (
      net.head(net.params['head'], values[-1])
      for net, values in ((ancestor, wanted), (model, given))
    )
    loss = rate**2 * jnp.mean(m2m.kl(*logits, temperature=rate))
    for p, adapter in enumerate(learner.maps, 1):
      target = wanted[_counterpart(p, model, ancestor)]
      off = _adapter.apply_adapter(adapter, given[p]) - target
      loss += self.blocks / model.depth * jnp.mean(jnp.square(off))
    return loss


def _counterpart(
  position: int, model: _segmented.Segmented, ancestor: _segmented.Segmented
) -> int:
  """Returns the ancestor's position at the same relative depth."""
  return round(position * ancestor.depth / model.depth)


def distilled(
  source: _adapter.Adapter, target: _adapter.Adapter
) -> _adapter.Adapter:
  r"""Composes two maps to common features into a map between networks.

  .. math:: h_b = (h_a M_a + c_a - c_b) M_b^+

  If b's features are linear images of the common ones, and both maps lead back
  to these, this is the map of least squares.

  Args:
    source: M_a ``[d_a, D]`` and c_a.
    target: M_b ``[d_b, D]`` and c_b.

  Returns:
    The map from a's features to b's, ``[d_a, d_b]``.

  Raises:
    ValueError: if a map has no weight, or they lead to different widths.

  Example:
    >>> import jax.numpy as jnp
    >>> a, b = (_adapter.Adapter(s * jnp.eye(2)) for s in (6.0, 2.0))
    >>> distilled(a, b).weight.round(4).tolist()
    [[3.0, 0.0], [0.0, 3.0]]

  Reference:
    Shi et al., 2023, arXiv:2312.05743, which learns maps in distillation and
    begins stitches with them.
  """
  first, second = source.weight, target.weight
  if first is None or second is None or first.shape[1] != second.shape[1]:
    shapes = [None if w is None else list(w.shape) for w in (first, second)]
    raise ValueError(
      f'distilled: weights of shapes {shapes[0]} and {shapes[1]}: expected '
      '[d_a, D] and [d_b, D], maps to the same features'
    )
  zero = jnp.zeros(first.shape[1], first.dtype)
  offset = (zero if source.bias is None else source.bias) - (
    zero if target.bias is None else target.bias
  )
  back = jnp.linalg.pinv(second)
  product = lambda x, y: jnp.matmul(x, y, precision='highest')
  return _adapter.Adapter(product(first, back), product(offset, back))


def descendant(
  pool: Mapping[str, Auxiliary], pieces: Sequence[routing.Piece]
) -> tuple[routing.Family, routing.Route]:
  """Builds a network of instances, from small to large.

  Where one auxiliary network's blocks end and another's begin there is a
  stitch, composed of the maps that were learned at these positions. Train the
  network that ``materialize`` makes of the result.

  Args:
    pool: the distilled networks by name.
    pieces: consecutive blocks of each, the narrower first.

  Returns:
    The networks with the stitches, and the route through them.

  Raises:
    ValueError: naming the piece that is unknown, that begins where there is no
      map, or that is narrower than the one before.

  Reference:
    Shi et al., 2023, arXiv:2312.05743.
  """
  adapters: dict[str, _adapter.Adapter] = {}
  names = []
  for i, (one, two) in enumerate(itertools.pairwise(pieces), 1):
    maps = []
    for piece, position in ((one, one.stop), (two, two.start)):
      own = pool[piece.model].maps if piece.model in pool else ()
      if not 1 <= position <= len(own):
        raise ValueError(
          f"descendant: piece {i} ('{two.model}' from {two.start}) joins "
          f"'{piece.model}' at {position}: it has maps at 1 .. {len(own)}"
        )
      maps.append(own[position - 1])
    stitch = distilled(*maps)
    assert stitch.weight is not None
    if stitch.weight.shape[0] > stitch.weight.shape[1]:
      raise ValueError(
        f"descendant: piece {i} ('{two.model}') is narrower than "
        f"'{one.model}': order instances from small to large"
      )
    names.append(f'{one.model}_{one.stop}_{two.model}_{two.start}')
    adapters[names[-1]] = stitch
  models = {name: member.model for name, member in pool.items()}
  family = routing.Family(models, adapters)
  return family, routing.Route(tuple(pieces), tuple(names))
