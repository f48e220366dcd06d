"""kth_magnitude against sorting, on distributions that are hard to bracket."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from wsl import tree
from wsl.tree._ranks import samples
from wsl.tree._reads import gpu

DTYPES = ('float64', 'float32', 'float16', 'bfloat16')
SIZES = (7, 40, 3)
PLACES = (1, 2, 11, 25, 49, 50)


def dtype_of(name: str) -> Any:
  return ml_dtypes.bfloat16 if name == 'bfloat16' else np.dtype(name)


def values(case: str, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
  rng = np.random.default_rng(len(case) + shape[-1])
  info = ml_dtypes.finfo(dtype)
  tiny, top = float(info.smallest_subnormal), float(info.max)
  x = {
    'normal': lambda: rng.normal(size=shape),
    'heavy': lambda: rng.standard_cauchy(size=shape) ** 3,
    'zeros': lambda: np.zeros(shape),
    'sparse': lambda: rng.normal(size=shape) * (rng.random(shape) < 0.05),
    'equal': lambda: np.full(shape, -2.5),
    'few': lambda: rng.integers(-2, 3, shape).astype(float),
    'denormal': lambda: rng.integers(-9, 10, shape) * tiny,
    'extreme': lambda: rng.choice([tiny, -tiny, top, -top, 0.0, 1.0], shape),
    'wide': lambda: (
      rng.choice([-1, 1], shape)
      * 2.0 ** rng.uniform(np.log2(tiny) + 1, np.log2(top) - 1, shape)
    ),
    'close': lambda: 1 + rng.integers(0, 40, shape) * float(info.eps),
  }[case]()
  with np.errstate(over='ignore'):
    return np.clip(x, -top, top).astype(dtype)


CASES = ['normal', 'heavy', 'zeros', 'sparse', 'equal', 'few', 'denormal']
CASES += ['extreme', 'wide', 'close']


def leaves(case: str, dtype: Any, models: int = 3) -> dict[str, np.ndarray]:
  return {str(n): values(case, dtype, (models, n)) for n in SIZES}


def by_sorting(x: dict[str, np.ndarray], k: Any) -> np.ndarray:
  rows = [np.float64(v).reshape(len(v), -1) for v in x.values()]
  flat = np.concatenate(rows, axis=1)
  ordered = np.sort(np.abs(flat), axis=1)[:, ::-1]
  k = np.broadcast_to(k, len(flat))
  return ordered[np.arange(len(flat)), k - 1]


@pytest.fixture
def small_samples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
  """A sample is not the whole model, which would be sorted."""
  monkeypatch.setattr(samples, 'SIZES', (16, 1 << 16))
  gpu._run.clear_cache()  # of searches with other samples
  yield
  gpu._run.clear_cache()


@pytest.mark.usefixtures('small_samples')
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('dtype', DTYPES)
def test_it_equals_the_result_of_sorting(dtype: str, case: str) -> None:
  x = leaves(case, dtype_of(dtype))
  y = {name: jnp.asarray(v) for name, v in x.items()}
  for k in PLACES:
    found = tree.kth_magnitude(y, k)
    assert found.dtype == dtype_of(dtype)
    np.testing.assert_array_equal(np.float64(found), by_sorting(x, k))
  each = np.asarray([1, 50, 20])
  found = tree.kth_magnitude(y, each)
  np.testing.assert_array_equal(np.float64(found), by_sorting(x, each))


@pytest.mark.usefixtures('small_samples')
@pytest.mark.parametrize('dtype', DTYPES)
def test_under_jit_and_vmap(dtype: str) -> None:
  ask = jax.jit(jax.vmap(tree.kth_magnitude, in_axes=(None, 0)))
  for case in CASES:
    x = leaves(case, dtype_of(dtype))
    y = {name: jnp.asarray(v) for name, v in x.items()}
    found = np.asarray(ask(y, jnp.asarray(PLACES)), np.float64)
    wanted = np.stack([by_sorting(x, k) for k in PLACES])
    np.testing.assert_array_equal(found, wanted, err_msg=case)


def test_a_small_model_is_sorted_without_counts() -> None:
  ask = jax.jit(jax.vmap(tree.kth_magnitude, in_axes=(None, 0)))
  for case in CASES:
    x = leaves(case, np.dtype('float32'))
    y = {name: jnp.asarray(v) for name, v in x.items()}
    found = np.asarray(ask(y, jnp.asarray(PLACES)))
    wanted = [by_sorting(x, k) for k in PLACES]
    np.testing.assert_array_equal(found, np.stack(wanted), err_msg=case)
    for k, magnitudes in zip(PLACES, wanted):
      found = tree.kth_magnitude(y, k)
      np.testing.assert_array_equal(found, magnitudes, err_msg=case)
  assert 'while' not in str(jax.make_jaxpr(ask)(y, jnp.asarray(PLACES)))
  y['7'] = y['7'].at[0, :2].set(np.nan)
  assert tree.kth_magnitude(y, 2)[0] == np.inf  # as where it counts


def test_leaves_of_several_dtypes() -> None:
  for dtypes in (('float32', 'float64'), ('bfloat16', 'float16', 'float32')):
    x = {d: values('normal', dtype_of(d), (2, 30)) for d in dtypes}
    y = {name: jnp.asarray(v) for name, v in x.items()}
    for k in (1, 17, 30 * len(dtypes)):
      found = tree.kth_magnitude(y, k)
      np.testing.assert_array_equal(found, by_sorting(x, k))
  both = {
    d: jnp.asarray(values('normal', dtype_of(d), (2, 30))) for d in DTYPES[2:]
  }
  assert tree.kth_magnitude(both, 5).dtype == np.float32


@pytest.mark.parametrize(
  'shape', [(2,), (2, 1), (1, 5), (2, 3, 4, 5), (3, 1, 1)]
)
def test_leaves_of_any_rank(shape: tuple[int, ...]) -> None:
  x = {'w': np.random.default_rng(0).normal(size=shape)}
  size = int(np.prod(shape[1:]))
  for k in {1, size // 2 + 1, size}:
    found = tree.kth_magnitude({'w': jnp.asarray(x['w'])}, k)
    np.testing.assert_array_equal(found, by_sorting(x, k))


LARGE = (3, 70_001)  # more than the sample, more than a block, and a rest


@pytest.mark.parametrize('case', CASES)
def test_large_leaves_in_few_passes(case: str) -> None:
  """A leaf on demand is read once for the sample and once a pass."""
  x = {'a': values(case, np.dtype('float32'), LARGE)}
  x['b'] = values(case, np.dtype('float32'), (3, 101, 97))
  reads = []

  def stored(name: str, v: np.ndarray) -> tree.Stored:
    def fetch() -> np.ndarray:
      reads.append(name)
      return v

    return tree.Stored(fetch, v.shape, v.dtype)

  y = tree.map_named(stored, x)
  size = sum(v[0].size for v in x.values())
  for k in (1, size // 5, size // 2, size):
    reads.clear()
    found = tree.kth_magnitude(y, k)
    np.testing.assert_array_equal(found, by_sorting(x, k))
    assert len(reads) <= 2 * 9, (k, len(reads))


def test_smooth_magnitudes_take_two_counts_and_a_collection() -> None:
  """A quarter of the models may need another count and collection."""
  x = np.random.default_rng(1).normal(size=(8, 2**18)).astype(np.float32)
  reads = []

  def fetch() -> np.ndarray:
    reads.append(1)
    return x

  leaf = tree.Stored(fetch, x.shape, x.dtype)
  shares = (0.01, 0.1, 0.2, 0.5)
  for share in shares:
    k = int(share * 2**18)
    np.testing.assert_array_equal(
      tree.kth_magnitude([leaf], k), by_sorting({'x': x}, k)
    )
  assert len(reads) <= len(shares) * (1 + 3) + 2
  # Several ranks of each model share the passes.
  reads.clear()
  ks = np.asarray([[5000] * 8, [70_000] * 8])
  found = tree.kth_magnitude([leaf], ks)
  np.testing.assert_array_equal(found, [by_sorting({'x': x}, k) for k in ks])
  assert len(reads) <= 1 + 3 + 2


def test_a_shift_between_leaves_does_not_mislead_the_sample() -> None:
  """All large entries are in one small leaf, or in one corner of a leaf."""
  rng = np.random.default_rng(0)
  x = {
    'body': np.float32(rng.normal(size=(2, 300, 300)) * 1e-6),
    'head': np.float32(rng.normal(size=(2, 7)) * 1e3),
  }
  x['body'][:, :3, :3] = 5.0
  y = {name: jnp.asarray(v) for name, v in x.items()}
  for k in (1, 7, 8, 16, 17, 90_007):
    np.testing.assert_array_equal(tree.kth_magnitude(y, k), by_sorting(x, k))


def test_reaches_marks_as_many_as_were_asked_for() -> None:
  for case in CASES:
    x = values(case, np.dtype('float32'), (3, 50))
    for k in (1, 20, 50):
      kth = jnp.asarray(tree.kth_magnitude({'w': jnp.asarray(x)}, k))
      reached = np.asarray(jax.vmap(tree.reaches)(jnp.asarray(x), kth))
      wanted = np.abs(x.astype(np.float64)) >= by_sorting({'w': x}, k)[:, None]
      np.testing.assert_array_equal(reached, wanted, err_msg=case)


@pytest.mark.parametrize('k', [0, 51, -1])
def test_an_invalid_count_is_refused(k: int) -> None:
  x = leaves('normal', np.dtype('float64'))
  with pytest.raises(ValueError, match=r'k must lie in 1 \.\. 50'):
    tree.kth_magnitude(x, k)


def test_counts_for_other_models_and_trees_without_entries() -> None:
  x = leaves('normal', np.dtype('float64'))
  with pytest.raises(
    ValueError, match=r'expected \(\) or \(3,\), one for each'
  ):
    tree.kth_magnitude(x, [1, 2])
  for empty in ({}, {'none': None}, {'w': np.zeros((2, 0))}):
    with pytest.raises(ValueError, match='holds no entries'):
      tree.kth_magnitude(empty, 1)
  for other in (np.ones((3, 2)), np.ones(())):
    with pytest.raises(ValueError, match=r"leaf 'w' has shape .*tree\.stack"):
      tree.kth_magnitude({'b': np.ones((2, 3)), 'w': other}, 1)
