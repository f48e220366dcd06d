"""RECONSTRUCTION of Learngene Pool: networks distilled from one, and stitched.

From the paper (Shi et al., 2023, arXiv:2312.05743) are the auxiliary networks,
the distillation of outputs and of block features through learnable maps, and
stitches that begin as these maps. Ours are the weights of the loss, the
direction of the maps (auxiliary to ancestor) with its counterpart at every
block, and the composition of two maps by a pseudo-inverse; the outputs of
self-attention, which the paper distils too, lie between two positions of a
segmented network and are left out.

The public code (github.com/superselll/learngenepool) maps the ancestor's
features to the auxiliary's, after the last block or after each third of the
blocks, and a stitch to the ancestor's width begins as the transpose of the mean
map, without bias.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.stitch import _adapter, _distil, _segmented


class Auxiliary(NamedTuple):
  """RECONSTRUCTION: a small network and its maps to the ancestor's features.

  Attributes:
    model: d blocks; each is an instance of the pool.
    maps: for each block a map from its output to the ancestor's features at the
      same relative depth.
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
  """RECONSTRUCTION: gives a small network random maps to an ancestor.

  Args:
    model: the small network, of any width and at most the ancestor's depth.
    ancestor: the large, trained network.
    inputs: a batch, or its shapes, to infer the widths.
    key: source of the weights of the maps, normal with variance 1 / d for an
      input of width d.

  Returns:
    The parameters that ``dense_distillation`` trains.

  Raises:
    ValueError: if the network is deeper than its ancestor.

  Reference:
    Shi et al., "Building Variable-sized Models via Learngene Pool", 2023,
    arXiv:2312.05743.
  """
  if not 1 <= model.depth <= ancestor.depth:
    raise ValueError(
      f'auxiliary: {model.depth} blocks and an ancestor of {ancestor.depth}: '
      f'expected 1 .. {ancestor.depth} blocks'
    )
  own, wanted = (
    jax.eval_shape(_segmented.features, m, inputs) for m in (model, ancestor)
  )
  maps = []
  for p in range(1, model.depth + 1):
    d, m = own[p].shape[-1], wanted[_counterpart(p, model, ancestor)].shape[-1]
    dtype = tree.wide_dtype(own[p])
    weight = jax.random.normal(jax.random.fold_in(key, p), (d, m), dtype)
    maps.append(_adapter.Adapter(weight * d**-0.5, jnp.zeros(m, dtype)))
  return Auxiliary(model, tuple(maps))


def dense_distillation(
  ancestor: _segmented.Segmented,
  *,
  blocks: float = 1.0,
  temperature: float = 1.0,
) -> Callable[..., types.Array]:
  r"""RECONSTRUCTION: the loss that distils an ancestor into a small network.

  .. math:: L = T^2 \, \overline{\mathrm{KL}}(\mathrm{softmax}(y / T) \,\|\,
    \mathrm{softmax}(y' / T)) + \beta \frac{1}{d} \sum_{p=1}^{d}
    \overline{\| h'_p M_p + c_p - h_{\pi(p)} \|^2}, \quad \pi(p) =
    \mathrm{round}(p D / d)

  Bars are means: of the divergence over examples, of the squared error over all
  entries. The public code has 0.1 times the cross-entropy of labels plus 0.9
  times the sum of three terms: the cross-entropy of both softmaxes, averaged
  over examples and classes without T^2, and mean squared errors of block and
  of attention outputs, summed over positions.

  Args:
    ancestor: the large network of D blocks; it is not trained.
    blocks: beta, the weight of the block features.
    temperature: T, above 0.

  Returns:
    A loss ``(auxiliary, batch, key) -> scalar`` for ``train.advance``; a batch
    is the inputs, or a tuple that begins with them.

  Reference:
    Shi et al., "Building Variable-sized Models via Learngene Pool", 2023,
    arXiv:2312.05743.
  """
  tree.check_scalars(
    'dense_distillation', blocks=blocks, temperature=temperature
  )
  return jax.tree_util.Partial(_Dense(blocks, temperature), ancestor)


@dataclasses.dataclass(frozen=True)
class _Dense:
  """The loss of ``dense_distillation``, hashable by its hyperparameters."""

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
    model = learner.model
    wanted = jax.lax.stop_gradient(_segmented.features(ancestor, inputs))
    given = _segmented.features(model, inputs)
    logits = (
      net.head(net.params['head'], values[-1])
      for net, values in ((ancestor, wanted), (model, given))
    )
    loss = _distil.soft(*logits, temperature=self.temperature, by_batch=True)
    for p, adapter in enumerate(learner.maps, 1):
      target = wanted[_counterpart(p, model, ancestor)]
      error = _adapter.apply_adapter(adapter, given[p]) - target
      loss += self.blocks / model.depth * jnp.mean(jnp.square(error))
    return loss


def _counterpart(
  position: int, model: _segmented.Segmented, ancestor: _segmented.Segmented
) -> int:
  """Returns the ancestor's position at the same relative depth."""
  # Position 0, the embedding, has no map; the last blocks always correspond.
  return round(position * ancestor.depth / model.depth)
