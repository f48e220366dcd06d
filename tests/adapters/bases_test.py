"""Orthogonal Adaptation: bases without collisions, and exact recovery."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import adapters, tree

KEY = jax.random.key(0)
N, OUT, R = 12, 5, 3
TOLERANCE = 1e-12 if jax.config.jax_enable_x64 else 1e-5
PARAMS = {
  'w': jax.ShapeDtypeStruct((N, OUT), jax.dtypes.canonicalize_dtype('float64')),
  'norm': {'scale': jax.ShapeDtypeStruct((4,), 'float32')},
}


def draw(kind: str, tasks: Any = range(4)) -> Any:
  return adapters.orthogonal_bases(
    PARAMS, rank=R, tasks=tasks, key=KEY, kind=kind
  )


def test_sums_of_disjoint_bases_keep_every_task() -> None:
  bases = draw('disjoint')
  assert list(bases) == ['w']
  a = np.asarray(bases['w'].a)
  assert not np.any(bases['w'].b)
  every = np.concatenate(a)
  # N / R tasks fill the space.
  np.testing.assert_allclose(every @ every.T, np.eye(N), atol=TOLERANCE)
  b = np.random.default_rng(0).standard_normal((4, OUT, R))
  total = sum(b[t] @ a[t] for t in range(4))
  for t in range(4):
    np.testing.assert_allclose(total @ a[t].T, b[t], atol=10 * TOLERANCE)
  # Each party draws its own basis.
  alone = np.asarray(draw('disjoint', [2])['w'].a)
  np.testing.assert_allclose(alone[0], a[2], atol=TOLERANCE)


def test_random_subsets_collide_as_expected() -> None:
  a = np.asarray(draw('subset', range(40))['w'].a)
  gram = np.einsum('trn,usn->turs', a, a)
  np.testing.assert_allclose(gram[0, 0], np.eye(R), atol=TOLERANCE)
  common = np.square(gram).sum((-2, -1))
  # Columns in common are whole numbers, r^2 / n = 0.75 on average.
  np.testing.assert_allclose(common, common.round(), atol=10 * TOLERANCE)
  others = common[~np.eye(40, dtype=bool)]
  assert others.max() >= 2
  assert others.mean() == pytest.approx(R**2 / N, rel=0.1)


def test_gaussian_bases_are_nearly_orthogonal() -> None:
  a = np.asarray(draw('gaussian', range(40))['w'].a)
  common = np.square(np.einsum('trn,usn->turs', a, a)).sum((-2, -1))
  others = common[~np.eye(40, dtype=bool)]
  assert others.mean() == pytest.approx(R**2 / N, rel=0.25)


def test_overlap() -> None:
  disjoint = adapters.overlap(draw('disjoint'))['w']
  np.testing.assert_allclose(disjoint, np.eye(4), atol=TOLERANCE)
  draws = np.random.default_rng(1).standard_normal((3, 2, N))
  draws[2, 1] = 2 * draws[2, 0]  # of rank 1
  draws[1, 0] = draws[0, 1]
  one = draw('disjoint', [0, 1, 2])['w']
  one = one.__class__(
    jnp.asarray(draws, one.a.dtype), one.b[..., :2], one.scale, one.shape,
    one.view,
  )  # fmt: skip
  found = adapters.overlap({'w': one})['w']
  bases = [np.linalg.qr(x.T)[0] for x in draws]
  bases[2] = bases[2][:, :1]
  wanted = [
    [np.square(p.T @ q).sum() / min(p.shape[1], q.shape[1]) for q in bases]
    for p in bases
  ]
  np.testing.assert_allclose(found, wanted, atol=100 * TOLERANCE)
  assert found[0, 1] >= 0.5


def test_scanned_layers_have_bases_each() -> None:
  params = {'w': jax.ShapeDtypeStruct((2, N, 2, 3), 'bfloat16')}
  views = {'w': tree.Matrix(batch=(0,), rows=(1,), columns=(2, 3))}
  found = adapters.orthogonal_bases(
    params, rank=R, tasks=[1, 0], key=KEY, matrices=views
  )['w']
  assert (found.a.shape, found.b.shape) == ((2, 2, R, N), (2, 2, 6, R))
  assert found.a.dtype == jnp.float32
  assert np.abs(found.a[0, 0] - found.a[0, 1]).max() > 0.1


@pytest.mark.parametrize(
  ('hyper', 'message'),
  [
    ({'tasks': [4]}, "leaf 'w' has 12 inputs, room for 4 tasks"),
    ({'rank': 13, 'kind': 'subset'}, 'room for 0 tasks of rank 13'),
    ({'rank': 0}, 'rank=0'),
    ({'tasks': [1, 1]}, 'expected different numbers'),
    ({'tasks': [-1]}, 'expected different numbers'),
    ({'kind': 'disjunct'}, "'disjoint'"),
    ({'leaves': 'scale'}, 'no leaf is a matrix'),
    ({'leaves': 'attn'}, 'orthogonal_bases'),
  ],
)
def test_mistakes(hyper: Any, message: str) -> None:
  hyper = {'rank': R, 'tasks': [0], 'key': KEY, **hyper}
  with pytest.raises(ValueError, match=message) as found:
    adapters.orthogonal_bases(PARAMS, **hyper)
  assert len(str(found.value)) < 200
