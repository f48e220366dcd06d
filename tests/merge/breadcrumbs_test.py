"""breadcrumbs against its definition in ten lines of numpy."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.merge import draws
from wsl import merge, tree

SCOPES = pytest.mark.parametrize('scope', ['global', 'leaf'])


def oracle(
  x: dict[str, np.ndarray], density: float, outliers: float, scope: str
) -> dict[str, np.ndarray]:
  """Sorts, and keeps the magnitudes between two ranks."""

  def bounds(rows: np.ndarray) -> list[np.ndarray]:
    d = rows.shape[1]
    top = int(outliers * d)
    kept = min(max(int(density * d), 1), d - top)
    order = -np.sort(-np.abs(rows), axis=1)
    above = order[:, top - 1] if top else np.full(len(rows), np.inf)
    return [above, order[:, top + kept - 1]]

  flat = {k: v.reshape(len(v), -1) for k, v in x.items()}
  whole = bounds(np.concatenate(list(flat.values()), axis=1))
  found = {}
  for k, v in x.items():
    found[k] = np.zeros_like(v)
    for t, (above, low) in enumerate(
      zip(*(whole if scope == 'global' else bounds(flat[k])))
    ):
      size = np.abs(v[t])
      found[k][t] = np.where((size >= low) & (size < above), v[t], 0)
  return found


def same(found: Any, wanted: Any) -> None:
  assert set(found) == set(wanted)
  for k, v in wanted.items():
    np.testing.assert_array_equal(found[k], v, err_msg=k)


@pytest.mark.parametrize('case', ['generic', 'quantised'])
@pytest.mark.parametrize(
  ('scope', 'dtype'), [('global', 'float64'), ('leaf', 'float32')]
)
def test_breadcrumbs_is_the_definition(
  scope: str, case: str, dtype: str
) -> None:
  x = draws.stacked(case)
  for density in (1e-9, 0.2, 0.57, 0.7):
    for outliers in (0.0, 0.01, 0.1, 0.3):
      found = merge.breadcrumbs(
        draws.jax_tree(x, dtype),
        density=density,
        outliers=outliers,
        scope=scope,
      )
      same(found, oracle(x, density, outliers, scope))


@pytest.mark.parametrize('size', [100, 1000])
def test_counts_are_exact_where_no_magnitudes_are_equal(size: int) -> None:
  """int(0.29 * 100) is 28 and int(0.57 * 100) is 56, there and here."""
  x = {'w': jnp.arange(1.0, size + 1)[None]}
  for density in (0.07, 0.29, 0.57):
    for outliers in (0.01, 0.29, 0.43):
      kept = merge.breadcrumbs(x, density=density, outliers=outliers)['w']
      top, count = int(outliers * size), int(density * size)
      places = np.flatnonzero(np.asarray(kept[0]))
      assert len(places) == count
      assert places[-1] == size - top - 1


def test_planted_outliers_and_noise_are_dropped() -> None:
  """Signal of magnitude 1 between noise of 1e-3 and outliers of 1e3."""
  rng = np.random.default_rng(0)
  signal = np.zeros((2, 50, 40))
  signal.reshape(2, -1)[:, :400] = rng.choice([-1.0, 1.0], size=(2, 400))
  x = signal.copy()
  x.reshape(2, -1)[:, 400:] = 1e-3 * rng.normal(size=(2, 1600))
  x.reshape(2, -1)[:, -20:] = 1e3 * rng.choice([-1.0, 1.0], size=(2, 20))
  x, signal = (rng.permuted(v.reshape(2, -1), axis=1) for v in (x, signal))
  signal = np.where((np.abs(x) > 0.5) & (np.abs(x) < 2), x, 0)
  kept = merge.breadcrumbs({'w': jnp.asarray(x)}, density=0.2, outliers=0.01)
  np.testing.assert_array_equal(kept['w'], signal)
  assert np.count_nonzero(signal) == 800


@SCOPES
def test_no_outliers_is_trim(scope: str) -> None:
  for case in ('generic', 'quantised'):
    x = draws.jax_tree(draws.stacked(case))
    for density in (0.2, 1.0):
      found = merge.breadcrumbs(x, density=density, outliers=0, scope=scope)
      same(found, merge.trim(x, density=density, scope=scope))
      ask = functools.partial(
        merge.breadcrumbs, x, density=density, scope=scope
      )
      mapped = jax.vmap(lambda o, ask=ask: ask(outliers=o))(jnp.zeros(1))
      same({k: v[0] for k, v in mapped.items()}, found)


def test_breadcrumbs_is_a_difference_of_two_trims() -> None:
  """If all magnitudes differ."""
  rng = np.random.default_rng(0)
  x = draws.jax_tree(
    {'w': rng.normal(size=(3, 10, 8)), 'b': rng.normal(size=(3, 20))}
  )
  kept = merge.breadcrumbs(x, density=0.4, outliers=0.1)
  most, top = (merge.trim(x, density=d) for d in (0.5, 0.1))
  same(kept, {k: most[k] - top[k] for k in x})


def test_equal_magnitudes_are_dropped_or_kept_together() -> None:
  ask = lambda row, **options: merge.breadcrumbs(
    {'w': jnp.asarray([row])}, **options
  )['w'][0].tolist()
  row = [4.0, -4.0, 2.0, -2.0, 2.0, 1.0, 0.0, 0.0]
  # Rank 1 is 4: both are outliers. Ranks 2 .. 3 end at 2: all three are kept.
  found = ask(row, density=0.25, outliers=0.125)
  assert found == [0.0, 0.0, 2.0, -2.0, 2.0, 0.0, 0.0, 0.0]
  # Entries of one magnitude alone are all outliers, or none is.
  assert ask([3.0, -3.0], density=0.5, outliers=0.5) == [0.0, 0.0]
  assert ask([3.0, -3.0], density=0.5, outliers=0.4) == [3.0, -3.0]


def test_fractions_for_each_model() -> None:
  x = draws.jax_tree({k: draws.stacked('generic')[k] for k in ('w', 's')})
  density, outliers = [0.1, 0.5, 1.0], [0.3, 0.1, 0.0]
  for scope in ('global', 'leaf'):
    each = merge.breadcrumbs(x, density=density, outliers=outliers, scope=scope)
    for t, (d, o) in enumerate(zip(density, outliers)):
      one = merge.breadcrumbs(x, density=d, outliers=o, scope=scope)
      same(
        {k: v[t] for k, v in each.items()}, {k: v[t] for k, v in one.items()}
      )


def test_small_leaves_have_no_outliers() -> None:
  """floor(outliers * entries) is 0; mergekit <= 0.1.4 dropped all entries."""
  x = {'s': jnp.ones(1), 'w': jnp.arange(1.0, 201)[None]}
  kept = merge.breadcrumbs(x, density=0.5, outliers=0.01, scope='leaf')
  assert kept['s'].tolist() == [1.0]
  assert kept['w'][0, -2:].tolist() == [0.0, 0.0]
  assert int((kept['w'] != 0).sum()) == 100


def test_a_leaf_without_entries_and_models_of_zeros() -> None:
  x = {'w': jnp.zeros((1, 5)), 'none': jnp.zeros((1, 0))}
  for scope in ('global', 'leaf'):
    kept = merge.breadcrumbs(x, density=0.4, outliers=0.2, scope=scope)
    assert tree.norm(kept['w']) == 0
    assert kept['none'].shape == (1, 0)


@SCOPES
def test_leaves_on_demand_are_read_as_often_as_for_trim(scope: str) -> None:
  """Both ranks are found by one search."""
  x = np.random.default_rng(0).normal(size=(2, 400, 50))
  counts = {}
  for name, call in {
    'trim': lambda x: merge.trim(x, density=0.5, scope=scope),
    'breadcrumbs': lambda x: merge.breadcrumbs(
      x, density=0.4, outliers=0.1, scope=scope
    ),
  }.items():
    reads = []

    def fetch(reads: list[int] = reads) -> np.ndarray:
      reads.append(1)
      return x

    tree.read(call({'w': tree.Stored(fetch, x.shape, x.dtype)}))
    counts[name] = len(reads)
  assert counts['breadcrumbs'] <= counts['trim'] + 2
