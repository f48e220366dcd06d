"""KnOTS against its definition in numpy."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from tests.merge import battery
from wsl import adapters, merge, tree

NEAR = 1e-10 if np.float64 == battery.FLOAT else 1e-4


def draw(seed: int, *shape: int) -> Any:
  return np.random.default_rng(seed).normal(size=shape)


def ties(x: Any, density: float) -> Any:
  """TIES of ``[T, d]`` with the mean."""
  kept = int(density * x.shape[1])
  x = x * (abs(x) >= np.sort(abs(x), 1)[:, [-kept]])
  x = x * (x * np.sign(x.sum(0)) > 0)
  return x.sum(0) / np.maximum((x != 0).sum(0), 1)


def oracle(leaves: list[Any], density: float) -> list[Any]:
  """KnOTS-TIES of weights ``[T, out, in]``, from the joined inputs."""
  parts, bases = [], []
  for x in leaves:
    u, s, vt = np.linalg.svd(np.concatenate(x, 1), full_matrices=False)
    u, s, vt = u[:, s > 1e-5], s[s > 1e-5], vt[s > 1e-5]
    parts.append(np.split(s[:, None] * vt, len(x), 1))
    bases.append(u)
  flat = [np.concatenate([p[t].ravel() for p in parts]) for t in range(len(x))]
  merged = ties(np.stack(flat), density)
  cuts = np.cumsum([p[0].size for p in parts])[:-1]
  split = np.split(merged, cuts)
  return [u @ z.reshape(p[0].shape) for u, z, p in zip(bases, split, parts)]


def test_knots_is_the_definition() -> None:
  weights = [draw(0, 3, 5, 4), draw(1, 3, 6, 1)]  # the second has rank 3
  wanted = oracle(weights, 0.3)
  x = dict(zip('uv', (np.swapaxes(w, 1, 2) for w in weights)))
  method = lambda z: merge.ties(z, density=0.3)
  found = merge.knots(x | {'b': draw(2, 3, 4)}, method=method)
  for name, want in zip('uv', wanted):
    np.testing.assert_allclose(found[name].T, want, rtol=NEAR, atol=NEAR)
  np.testing.assert_allclose(found['b'], draw(2, 3, 4).mean(0), rtol=NEAR)
  linear = merge.knots(x, method=merge.sum)
  np.testing.assert_allclose(linear['u'], x['u'].sum(0), rtol=NEAR, atol=NEAR)


def test_loras_are_merged_in_as_many_directions_as_they_have() -> None:
  view = tree.Matrix(rows=(1,), columns=(0,))
  factors = [
    adapters.Factors(
      jnp.asarray(draw(t, 2, 5)),
      jnp.asarray(draw(t + 9, 8, 2)),
      0.5,
      (8, 5),
      view,
    )
    for t in range(2)
  ]
  x = jnp.stack([adapters.dense(f) for f in factors])
  wanted = oracle([np.asarray(x)], 0.4)[0]
  found = merge.knots(
    {'w': x},
    method=lambda z: merge.ties(z, density=0.4),
    rank=4,
    matrices={'w': view},
  )
  np.testing.assert_allclose(found['w'], wanted, rtol=NEAR, atol=10 * NEAR)
  # Their factors give the same merge, as factors, without their products.
  both = adapters.stack([{'w': f, 'b': jnp.ones(3)} for f in factors])
  found = merge.knots(both, method=lambda z: merge.ties(z, density=0.4))
  assert found['w'].a.shape == (4, 5)
  product = adapters.dense(found['w'])
  np.testing.assert_allclose(product, wanted, rtol=NEAR, atol=30 * NEAR)
