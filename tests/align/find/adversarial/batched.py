"""Linear algebra on stacks, ragged products and shards.

Each case is followed by a neighbour that looks alike and has a smaller group.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tests.align.find.adversarial import base as adversarial
from tests.align.find.zoo import base

f = base.factorial
case, hidden = adversarial.case, adversarial.hidden


def _solved(left, right, read):
  """Solves equations whose matrix and right-hand sides are given."""

  def apply(p, x):
    h = jnp.tanh(x @ p['a'])
    return read(jnp.linalg.solve(left(p, x, h), right(p, x, h)), p)

  return apply


def _grouped_rows(p, x):
  """Rows 0 and 1 are multiplied by one matrix, rows 2 and 3 by the other."""
  h = jnp.tanh(x @ p['a'])
  counts = jnp.asarray([2, 2], jnp.int32)
  return jnp.tanh(jax.lax.ragged_dot(h, p['e'], counts)) @ p['b']


def _sharded(body, ins, out, check=True):
  """Runs a body on two devices, or on one if there are no more."""

  def apply(p, x):
    count = min(2, jax.device_count())
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:count]), ('d',))
    fn = jax.shard_map(
      body, mesh=mesh, in_specs=ins, out_specs=out, check_vma=check
    )
    return fn(x, p['a'], p['b'])

  return apply


def _in_lower_triangle(p, h):
  triangle = jnp.tril(h @ h.T) + 3 * jnp.eye(4)
  return jax.scipy.linalg.solve_triangular(triangle, h, lower=True)


_SPEC = jax.sharding.PartitionSpec
_COLUMNS = (_SPEC(), _SPEC(None, 'd'), _SPEC('d'))
_SHARDS = min(2, jax.device_count())

CASES = {
  'fourier_transform_over_rows': hidden(
    lambda p, h: jnp.real(jnp.fft.fft(h, axis=0)), f(6)
  ),
  'fourier_transform_over_units': hidden(
    lambda p, h: jnp.real(jnp.fft.fft(h)), 1
  ),
  'triangle_of_rows': hidden(_in_lower_triangle, f(6)),
  'triangle_of_units': hidden(
    lambda p, h: _in_lower_triangle(p, h[:, :4].T).T, f(2), b=(4, 2)
  ),
  'factors_of_rows': hidden(
    lambda p, h: jnp.linalg.cholesky(h @ h.T + 3 * jnp.eye(4)) @ h, f(6)
  ),
  'factors_of_units': hidden(
    lambda p, h: h @ jnp.linalg.cholesky(h.T @ h + jnp.eye(6)), 1
  ),
  # The equations m y = r may be listed in any order, and so may unknowns.
  'solutions_by_parameters': case(
    _solved(
      lambda p, x, h: p['m'],
      lambda p, x, h: p['r'],
      lambda y, p: jnp.sin(y.T @ p['c']),
    ),
    {'a': (3, 2), 'm': (5, 5), 'r': (5, 2), 'c': (5, 3)},
    f(5) ** 2,
  ),
  'solutions_by_features': case(
    _solved(
      lambda p, x, h: h.T @ h + p['m'],
      lambda p, x, h: p['r'],
      lambda y, p: y.T @ p['c'],
    ),
    {'a': (3, 5), 'm': (5, 5), 'r': (5, 2), 'c': (5, 2)},
    f(5),
  ),
  'solutions_read_as_factors': case(
    lambda p, x: jnp.tanh(x @ p['a']) @ jax.scipy.linalg.lu_factor(p['m'])[0],
    {'a': (3, 5), 'm': (5, 5)},
    1,
  ),
  'rows_in_groups': case(
    _grouped_rows, {'a': (3, 5), 'e': (2, 5, 4), 'b': (4, 2)}, f(5) * f(4)
  ),
  # Units of all shards may be exchanged; a shard counts as a head here.
  'shards_of_units': case(
    _sharded(
      lambda x, a, b: jax.lax.psum(jnp.tanh(x @ a) @ b, 'd'), _COLUMNS, _SPEC()
    ),
    {'a': (3, 6), 'b': (6, 2)},
    f(6),
    least=f(6 // _SHARDS) ** _SHARDS * _SHARDS,
  ),
  'shards_by_position': case(
    _sharded(
      lambda x, a, b: jax.lax.psum(
        jnp.tanh(x @ a) @ b * (1 + jax.lax.axis_index('d')).astype(x.dtype), 'd'
      ),
      _COLUMNS,
      _SPEC(),
    ),
    {'a': (3, 6), 'b': (6, 2)},
    f(6 // _SHARDS) ** _SHARDS,
  ),
  'shards_of_rows': case(
    _sharded(
      lambda x, a, b: jnp.tanh(x @ a) @ b,
      (_SPEC('d'), _SPEC(), _SPEC()),
      _SPEC('d'),
    ),
    {'a': (3, 6), 'b': (6, 2)},
    f(6),
  ),
}
