"""Permutations in place and products against NumPy's."""

import numpy as np
import pytest

from wsl.align._match import block_pairs, cached_gains, weight_gains
from wsl.align._solvers import row_blocks


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
  monkeypatch.setattr(row_blocks, '_ENTRIES', 64)


@pytest.mark.parametrize('axis', [0, 1, 2])
@pytest.mark.parametrize('moved', [0, 2, 24])
@pytest.mark.parametrize('layout', ['C', 'F', 'cut'])
def test_permuting_in_place_equals_a_gather(axis, moved, layout):
  rng = np.random.default_rng(axis)
  x = rng.standard_normal((24, 24, 48))[..., :24]
  x = x if layout == 'cut' else np.array(x, order=layout)
  table = np.arange(24)
  units = rng.permutation(24)[:moved]
  table[units] = np.roll(units, 1)
  expected = x.take(table, axis)
  block_pairs.permute_in_place(x, table, axis)
  np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_changes_sum_to_the_change_of_the_gains(axis):
  rng = np.random.default_rng(0)
  names = ('a', 'b', 'c')
  fixed, moving = rng.standard_normal((2, 18, 40, 5)).astype(np.float32)
  block = block_pairs.BlockPair(names, fixed, moving)
  order = rng.permutation(moving.shape[axis])
  other = names[(axis + 1) % 3]
  gains = weight_gains.gains([block], other, ())
  cache = {other: cached_gains.Gains(gains, frozenset([0]))}
  for change in cached_gains.changes(block, order, axis):
    cached_gains.update(cache, [other], change)
  after = block._replace(moving=moving.take(order, axis))
  expected = weight_gains.gains([after], other, ())
  np.testing.assert_allclose(cache[other].array, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('dtypes', ['fff', 'ddd', 'ffd', 'fdd', 'dff'])
@pytest.mark.parametrize('layout', ['C', 'F', 'cut'])
def test_products_are_added_in_place(dtypes, layout):
  rng = np.random.default_rng(0)
  total, x, y = (
    rng.standard_normal((7, 2 * n)).astype(d) for n, d in zip((7, 3, 3), dtypes)
  )
  total = np.ascontiguousarray(total[:, :7])
  cut = lambda z: z[:, ::2] if layout == 'cut' else np.array(z, order=layout)
  x, y = cut(x), cut(y)
  expected = total + x.astype('d') @ y.T.astype('d')
  found = weight_gains._add_product(total, x, y)
  assert found is total or np.may_share_memory(found, total)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
  alone = weight_gains._add_product(None, x, y)
  np.testing.assert_allclose(alone, x @ y.T, rtol=1e-4, atol=1e-4)
  assert alone.flags.c_contiguous
