"""Differences of models, against their definitions entry by entry."""

import pathlib
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from wsl import checkpoint, stats, tree

BF16 = ml_dtypes.bfloat16


def pair(dtype: Any, size: int = 5000) -> tuple[np.ndarray, np.ndarray]:
  """Two arrays that differ in a third of the entries, some by one ulp."""
  rng = np.random.default_rng(0)
  x = (10 * rng.normal(size=size)).astype(dtype)
  y = x.copy()
  width = 8 * x.dtype.itemsize
  bits = y.view(f'uint{min(width, 64)}')
  bits[::3] ^= 1
  y[1] = 0
  return x, y


@pytest.mark.parametrize(
  'dtype', ['float32', BF16, 'float16', 'float64', 'int32', 'uint8']
)
def test_differences_equal_their_definitions(dtype: Any) -> None:
  x, y = pair(dtype)
  ((name, found),) = stats.leaf_differences({'w': x}, {'w': y})
  assert name == 'w'
  a, b = x.astype(np.float64), y.astype(np.float64)
  gap, largest = np.abs(a - b), np.maximum(np.abs(a), np.abs(b))
  steps = stats.ulps(x, y)
  assert found.entries == 5000
  assert found.differing == np.sum(x != y)
  assert found.max_abs == gap.max()
  assert found.max_rel == np.max(gap[gap > 0] / largest[gap > 0])
  assert found.max_ulps == steps.max()
  np.testing.assert_allclose(found.distance, np.linalg.norm(a - b))
  np.testing.assert_allclose(found.norm, np.linalg.norm(a))
  assert found.relative == found.distance / found.norm
  assert found.bins is not None
  assert found.bins.sum() == 5000
  assert found.bins[0] == np.sum(steps == 0)
  assert found.bins[1] == np.sum(steps == 1)
  assert found.bins[3] == np.sum((steps >= 4) & (steps < 8))


def test_files_are_compared_in_chunks_of_any_format(
  tmp_path: pathlib.Path,
) -> None:
  """Chunks of 1 MiB have other numbers of entries for each dtype."""
  rng = np.random.default_rng(0)
  a = {
    'layers': {'10': {'w': rng.normal(size=(700, 900)).astype(BF16)},
               '2': {'w': rng.normal(size=(40, 30)).astype('float32')}},
    'empty': np.zeros((0, 3), 'float32'), 'scalar': np.float32(2),
  }  # fmt: skip
  b = {
    'layers.10.w': a['layers']['10']['w'].astype('float32'),
    'layers.2.w': a['layers']['2']['w'].copy(),
    'empty': a['empty'], 'scalar': a['scalar'],
  }  # fmt: skip
  b['layers.10.w'][-1, -1] *= 1.5
  b['layers.2.w'][0, 0] = np.nextafter(b['layers.2.w'][0, 0], np.float32(9))
  checkpoint.save(tmp_path / 'a.safetensors', a)
  np.savez(tmp_path / 'b.npz', **b)
  a, b = (
    checkpoint.load(tmp_path / n, lazy=True) for n in ('a.safetensors', 'b.npz')
  )
  found = dict(stats.leaf_differences(a, b))
  names = ['empty', 'layers/2/w', 'layers/10/w', 'scalar']
  assert list(found) == names
  empty, two, ten, scalar = found.values()
  assert (empty.entries, empty.differing, empty.relative) == (0, 0, 0)
  assert (two.differing, two.max_ulps) == (1, 1)
  # Of other dtypes: nothing but one entry is left after rounding.
  assert (ten.entries, ten.differing) == (630000, 630000)
  assert ten.bins is not None
  assert ten.bins[0] == 629999
  assert 32 <= (ten.max_ulps or 0) <= 128
  assert (scalar.entries, scalar.differing, scalar.max_abs) == (1, 0, 0)


def test_values_that_are_not_finite() -> None:
  nan, inf = np.nan, np.inf
  x = np.float32([nan, inf, -inf, nan, 1, inf, 0.0, 2])
  y = np.float32([nan, inf, inf, 1, inf, inf, -0.0, 2])
  ((_, found),) = stats.leaf_differences({'w': x}, {'w': y})
  assert found.differing == 4
  assert found.max_abs == found.max_rel == found.distance == inf
  assert found.unordered == 1
  assert found.max_ulps == int(stats.ulps(np.float32(-inf), np.float32(inf)))
  assert found.bins is not None
  assert found.bins.sum() == len(x) - 1
  assert found.norm == 5**0.5
  ((_, found),) = stats.leaf_differences({'w': x[6:]}, {'w': y[6:]})
  assert (found.differing, found.max_abs, found.max_ulps) == (1, 0, 0)


def test_integers_are_compared_exactly_and_bools() -> None:
  x = np.asarray([2**62, -(2**63)])
  ((_, found),) = stats.leaf_differences({'n': x}, {'n': x + [1, 0]})
  assert (found.max_ulps, found.max_abs) == (1, 1)
  ((_, found),) = stats.leaf_differences({'n': x}, {'n': x.astype('uint64')})
  assert found.max_ulps is found.bins is None
  flags = np.asarray([True, False])
  ((_, found),) = stats.leaf_differences({'f': flags}, {'f': ~flags})
  assert (found.differing, found.max_ulps, found.max_rel) == (2, 1, 1)


def test_complex_leaves() -> None:
  x = np.asarray([3 + 4j, 1j], np.complex64)
  ((_, found),) = stats.leaf_differences({'w': x}, {'w': 2 * x})
  assert (found.max_abs, found.max_rel, found.differing) == (5, 0.5, 2)
  assert found.relative == 1


def test_nothing_is_read_before_its_leaf() -> None:
  read: list[str] = []

  def leaf(name: str) -> tree.Stored:
    x = np.zeros(3)
    return tree.Stored(lambda: (read.append(name), x)[1], x.shape, x.dtype)

  a, b = ({name: leaf(name) for name in 'pqr'} for _ in range(2))
  each = stats.leaf_differences(a, b)
  assert not read
  next(each)
  assert 'r' not in read


def test_other_names_and_shapes_are_refused() -> None:
  x = np.zeros(3)
  with pytest.raises(ValueError, match=r"a has no leaf 'c' of b"):
    stats.leaf_differences({'a': x}, {'a': x, 'c': x})
  with pytest.raises(ValueError, match=r"b has no leaf 'a' of a"):
    stats.leaf_differences({'a': x}, {})
  with pytest.raises(ValueError, match=r"leaf 'a' has shape \(1,\) in b"):
    stats.leaf_differences({'a': x}, {'a': x[:1]})
