"""Operations of the other rooms on a mesh of three axes equal one device."""

from typing import Any

import jax
import numpy as np
import pytest

from tests import operations
from wsl import mesh

pytestmark = pytest.mark.needs_devices(8)
AXES = 'abc'
# Programs that other rows have in them, and small arrays that stay on a device.
SKIPPED = (
  *('differentiated', 'bfloat16', 'of rows', 'multi_task', 'random cells'),
  *('lbfgs', 'sgd', 'low rank', 'low_rank', 'invert', 'compose_maps', 'resize'),
  *('orthogonal', 'translate', 'relative', '_loss', 'basis', 'class_means'),
  *('naswot', 'random_route', 'fit_each', 'about_origin', 'softmax', 'box'),
)


def shard(x: Any, m: jax.sharding.Mesh) -> Any:
  """Shards the even axes of an array, the last ones first, by two devices."""
  if not hasattr(x, 'shape') or jax.dtypes.issubdtype(
    x.dtype, jax.dtypes.prng_key
  ):
    return x
  even = [i for i, n in enumerate(x.shape) if n % 2 == 0][::-1][: len(AXES)]
  entries = dict(zip(even, AXES))
  spec = jax.P(*[entries.get(i) for i in range(len(x.shape))])
  return jax.device_put(x, jax.sharding.NamedSharding(m, spec))


def difference(found: Any, wanted: Any) -> float:
  """Returns the largest relative difference of two trees of arrays."""
  worst = 0.0
  for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    if jax.dtypes.issubdtype(y.dtype, jax.dtypes.prng_key) or not y.size:
      continue
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if not np.array_equal(x, y, equal_nan=True):
      worst = max(worst, float(np.abs(x - y).max() / np.abs(y).max()))
  return worst


@pytest.mark.parametrize('room', ['scaling', 'aligning', 'stitching'])
def test_eight_devices_equal_one(room: str) -> None:
  m = mesh.make('a:2,b:2,c:2')
  table = operations.room(room, 'float32')
  names = [n for n in table if not any(word in n for word in SKIPPED)]
  found = {}
  for name in names:
    fn, args = table[name]
    sharded = jax.tree.map(lambda x: shard(x, m), args)
    found[name] = difference(jax.jit(fn)(*sharded), jax.jit(fn)(*args))
  assert not {name: x for name, x in found.items() if not x < 3e-5}
