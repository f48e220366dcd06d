"""Operations of ``align`` and ``stats``."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from tests.operations import inputs
from wsl import align, stats, types
from wsl.align import _soft


def parts(dtype: Any) -> list[inputs.Table]:
  return [_permutations(dtype), _statistics(dtype), _streamed(dtype)]


@functools.cache
def symmetry() -> align.Symmetry:
  a = inputs.params('float32', 1)
  return align.find_symmetry(inputs.mlp, a, jnp.ones((inputs.N, 4), 'float32'))


def _permutations(dtype: Any) -> inputs.Table:
  a, b = (inputs.params(dtype, i) for i in (1, 2))
  found = symmetry()
  (group,) = found.groups
  pi = align.random(found, inputs.KEY, gauges=('permutation',))
  free = inputs.normal(dtype, inputs.H, inputs.H)

  def soft(free: Any, b: Any) -> Any:
    return _soft.apply(b, {group: jax.nn.softmax(free)}, symmetry=found)

  return {
    'align.permute': (
      lambda p, pi: align.permute(p, pi, symmetry=found), (a, pi)
    ),
    'align.compose': (
      lambda p, q: align.compose(p, q, symmetry=found), (pi, pi)
    ),
    'align.identity': (lambda: align.identity(found), ()),
    'align.random': (functools.partial(align.random, found), (inputs.KEY,)),
    'align.invert': (lambda p: align.invert(p, symmetry=found), (pi,)),
    'align.unit_gains': (
      lambda a, b: align.unit_gains(a, b, symmetry=found), (a, b)
    ),
    'align.sinkhorn_project': (
      lambda x: align.sinkhorn_project(x, temperature=1.0, iterations=3),
      (free,),
    ),
    'align.sinkhorn: soft permutations': (soft, (free, b)),
    'align.sinkhorn: their gradient': (inputs.slope(soft), (free, b)),
  }  # fmt: skip


def cross(x: types.Array, y: types.Array) -> Any:
  """Returns the moments of two arrays of features."""
  take = lambda name: lambda batch: [batch[name]]
  batches = [{'x': x, 'y': y}]
  return stats.cross_moments(take('x'), take('y'), batches)[0, 0]


def _statistics(dtype: Any) -> inputs.Table:
  x = inputs.normal(dtype, inputs.N, 4, seed=3)
  y = inputs.normal(dtype, inputs.N, 5, seed=4)
  on_moments = {
    'cka': stats.cka,
    'cca': stats.cca,
    'about_origin': stats.about_origin,
    'least_squares': stats.least_squares,
    'residual': stats.residual,
  }
  found: inputs.Table = {
    f'stats.{name}': (lambda x, y, fn=fn: fn(cross(x, y)), (x, y))
    for name, fn in on_moments.items()
  }
  return found | {'stats.rbf_cka': (stats.rbf_cka, (x, y))}


def _streamed(dtype: Any) -> inputs.Table:
  a, b = (inputs.params(dtype, i) for i in (1, 2))
  x = inputs.normal(dtype, inputs.N, 4, seed=3)
  over = lambda fn: lambda p, x: fn(inputs.mlp, p, [x])
  return {
    'stats.fisher': (over(stats.fisher), (a, x)),
    'stats.gram': (over(stats.gram), (a, x)),
    'stats.moments': (over(stats.moments), (a, x)),
    'stats.cross_moments': (cross, (x, x)),
    'stats.joint_gram': (
      lambda a, b, x: stats.joint_gram(inputs.mlp, [a, b], [x]), (a, b, x)
    ),
  }  # fmt: skip
