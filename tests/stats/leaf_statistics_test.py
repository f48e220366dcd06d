"""Statistics of leaves equal their definitions in float64."""

from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from tests import traces
from wsl import checkpoint, deltas, stats, tree, types

T = 3
SHAPES = {'layers.10.w': (5, 7), 'layers.2.w': (9, 4), 'norm.bias': (6,)}


def draw(seed: int, dtype: Any = 'float32') -> dict[str, np.ndarray]:
  rng = np.random.default_rng(seed)
  scale = 1.0 if seed == 0 else 0.1
  base = draw(0) if seed else {}
  found = {}
  for name, shape in SHAPES.items():
    x = scale * rng.normal(size=shape) + base.get(name, 0.0)
    found[name] = x.astype(dtype)
  return found


def oracle(vectors: np.ndarray, base: np.ndarray | None) -> dict[str, Any]:
  """The definitions, entry by entry, of ``[T, ...]``."""
  x = vectors.astype(np.complex128 if np.iscomplexobj(vectors) else np.float64)
  flat = x.reshape(len(x), -1)
  norms = np.linalg.norm(flat, axis=1)
  products = np.real(flat.conj() @ flat.T)
  positive = np.maximum(flat.real, 0).sum(0)
  negative = np.maximum(-flat.real, 0).sum(0)
  ratio = np.full(len(x), np.nan)
  if base is not None:
    ratio = norms / np.linalg.norm(base.astype(np.float64))
  return {
    'cosine': products / np.outer(norms, norms),
    'sign_conflict': np.minimum(positive, negative).sum()
    / np.abs(flat.real).sum(),
    'norm_ratio': ratio,
  }


def ranks(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Effective and stable ranks of ``[..., m, n]`` from singular values."""
  s = np.linalg.svd(matrices.astype(np.float64), compute_uv=False)
  p = s / s.sum(-1, keepdims=True)
  entropy = -np.sum(p * np.log(np.where(p > 0, p, 1)), -1)
  return np.exp(entropy), np.sum(s**2, -1) / s[..., 0] ** 2


@pytest.mark.parametrize(
  ('place', 'dtype'),
  [('memory', 'float32'), ('memory', 'float64'), ('file', 'bfloat16')],
)
def test_statistics_equal_their_definitions(
  tmp_path: Any, place: str, dtype: str
) -> None:
  kind = ml_dtypes.bfloat16 if dtype == 'bfloat16' else dtype
  base, *models = given = [draw(seed, kind) for seed in range(T + 1)]
  if place == 'file':
    for i, params in enumerate(given):
      checkpoint.save(tmp_path / f'{i}.safetensors', params)
    base, *models = [
      checkpoint.load(tmp_path / f'{i}.safetensors', lazy=True)
      for i in range(T + 1)
    ]
  stack = deltas.stack(base, models)
  found = dict(stats.leaf_statistics(stack, base))
  assert list(found) == ['layers.2.w', 'layers.10.w', 'norm.bias']
  for name, one in found.items():
    vectors = np.asarray(tree.read(stack[name]))
    wanted = oracle(vectors, given[0][name])
    for field, value in wanted.items():
      np.testing.assert_allclose(getattr(one, field), value, rtol=1e-12)
    assert np.all(np.diagonal(one.cosine) == 1)
    if name == 'norm.bias':
      assert one.effective_rank is one.stable_rank is None
    else:
      effective, stable = ranks(vectors)
      assert one.effective_rank.shape == (T, 1)
      np.testing.assert_allclose(one.effective_rank[:, 0], effective, rtol=1e-9)
      np.testing.assert_allclose(one.stable_rank[:, 0], stable, rtol=1e-9)


def test_planted_values() -> None:
  base = {'w': np.zeros((4, 4), 'float32'), 'n': np.arange(3)}
  a, b = np.diag([1, 1, 1, 1.0]), np.diag([1, 1, -1, 0.0])
  stack = {'w': np.stack([a, b, 0 * a]).astype('float32'), 'n': None}
  ((name, one),) = stats.leaf_statistics(stack, base)
  assert name == 'w'
  np.testing.assert_allclose(one.cosine[0, 1], 1 / 12**0.5)
  assert np.isnan(one.cosine[2]).all()
  assert np.isnan(one.cosine[:, 2]).all()
  # Two entries agree, one cancels (either sign), one has a single change.
  assert one.sign_conflict == 1 / 7
  assert np.isposinf(one.norm_ratio[:2]).all()
  assert np.isnan(one.norm_ratio[2])
  np.testing.assert_allclose(one.effective_rank[:2, 0], [4, 3])
  np.testing.assert_allclose(one.stable_rank[:2, 0], [4, 3])
  assert np.isnan(one.effective_rank[2, 0])


def test_low_ranks_are_exact() -> None:
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(40, 2)), rng.normal(size=(2, 30))
  ((_, one),) = stats.leaf_statistics({'w': (a @ b)[None]})
  effective, stable = ranks(a @ b)
  np.testing.assert_allclose(one.effective_rank, effective, rtol=1e-6)
  np.testing.assert_allclose(one.stable_rank, stable, rtol=1e-12)
  assert one.effective_rank < 2


def test_views_are_those_of_the_merges() -> None:
  x = np.random.default_rng(0).normal(size=(2, 3, 8, 2, 5))
  rule = {'query': tree.Matrix(batch=(0,), rows=(1,), columns=(2, 3))}
  stack = {'layers/query': x}
  ((_, one),) = stats.leaf_statistics(stack, matrices=rule)
  effective, _ = ranks(x.reshape(2, 3, 8, 10))
  np.testing.assert_allclose(one.effective_rank, effective, rtol=1e-9)
  ((_, plain),) = stats.leaf_statistics(stack)
  assert plain.effective_rank is None
  with pytest.raises(
    ValueError, match=r'leaf_statistics: .*more than two axes'
  ):
    stats.leaf_statistics(stack, otherwise='refuse')
  ((_, short),) = stats.leaf_statistics(stack, matrices=rule, ranks=False)
  assert short.effective_rank is None
  assert short.sign_conflict == one.sign_conflict


def test_complex_leaves_and_small_numbers() -> None:
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 4, 3)) + 1j * rng.normal(size=(2, 4, 3))
  ((_, one),) = stats.leaf_statistics({'w': x.astype('complex64')})
  np.testing.assert_allclose(
    one.cosine, oracle(x, None)['cosine'], rtol=1e-5, atol=1e-6
  )
  _, stable = ranks_of_complex(x)
  np.testing.assert_allclose(one.stable_rank[:, 0], stable, rtol=1e-5)
  # Their squares are zero in float32.
  tiny = {'w': np.asarray([[1e-30, 0], [1e-30, 1e-30]], 'float32')}
  ((_, one),) = stats.leaf_statistics(tiny)
  np.testing.assert_allclose(one.cosine[0, 1], 0.5**0.5, rtol=1e-6)


def ranks_of_complex(x: np.ndarray) -> tuple[None, np.ndarray]:
  s = np.linalg.svd(x, compute_uv=False)
  return None, np.sum(s**2, -1) / s[..., 0] ** 2


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_values_that_are_not_finite(value: float) -> None:
  x = np.ones((2, 3, 3), 'float32')
  x[0, 0, 0] = value
  ((_, one),) = stats.leaf_statistics({'w': x})
  assert np.isnan(one.cosine[0]).all()
  assert one.cosine[1, 1] == 1
  assert one.effective_rank is not None
  assert np.isnan(one.effective_rank[0, 0])
  np.testing.assert_allclose(one.effective_rank[1, 0], 1)


def test_nothing_is_read_before_its_leaf() -> None:
  read: list[str] = []

  def leaf(name: str, x: np.ndarray) -> tree.Stored:
    return tree.Stored(lambda: (read.append(name), x)[1], x.shape, x.dtype)

  def stored(params: types.Params) -> types.Params:
    return {name: leaf(name, x) for name, x in params.items()}

  base, model = stored(draw(0)), stored(draw(1))
  each = stats.leaf_statistics(deltas.stack(base, [model]), base, ranks=False)
  assert not read
  next(each)
  assert set(read) == {'layers.2.w'}


@pytest.mark.parametrize(
  ('stack', 'base', 'message'),
  [
    ({'a': np.arange(3)}, None, "leaf 'a' of int64.* no stack of floats"),
    ({'a': np.ones((0, 2))}, None, "leaf 'a' .* no stack of floats"),
    ({'a': np.ones((2, 3))}, {'b': np.ones(3)}, r"'a' .* \(3,\), of the base "
     'None'),
    ({'a': np.ones((2, 3))}, {'a': np.ones(4)}, r'of the base \(4,\)'),
  ],
)  # fmt: skip
def test_mistakes(stack: Any, base: Any, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    stats.leaf_statistics(stack, base)


def test_leaves_of_one_shape_share_a_program() -> None:
  stack = {f'{i}.w': jnp.full((2, 6, 5), i + 1.0) for i in range(4)}
  base = {f'{i}.w': jnp.ones((6, 5)) for i in range(4)}
  each = stats.leaf_statistics(stack, base)
  next(each)
  compiled = traces.programs()
  assert len(list(each)) == 3
  assert traces.programs() == compiled
