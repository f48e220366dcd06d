"""trim, elect_sign, mean_nonzero and ties against their definitions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.merge import draws
from wsl import merge, tree


def oracle_trim(
  x: dict[str, np.ndarray], density: float, scope: str, extra: int
) -> dict[str, np.ndarray]:
  """Sorts: keeps what reaches the k-th largest magnitude."""

  def cut(rows: np.ndarray) -> np.ndarray:
    d = rows.shape[1]
    k = min(max(int(density * d) + extra, 1), d)
    return np.sort(np.abs(rows), axis=1)[:, d - k]

  flat = {k: v.reshape(len(v), -1) for k, v in x.items()}
  whole = cut(np.concatenate(list(flat.values()), axis=1))
  kept = {}
  for k, v in x.items():
    t = whole if scope == 'global' else cut(flat[k])
    kept[k] = v * (np.abs(v) >= t.reshape(-1, *[1] * (v.ndim - 1)))
  return kept


def oracle_ties(
  x: dict[str, np.ndarray],
  density: float,
  scope: str,
  reduce: str,
  dialect: str,
) -> dict[str, np.ndarray]:
  """The steps of the paper, one after the other, on sorted arrays."""
  x = oracle_trim(x, density, scope, extra=int(dialect == 'official'))
  signs = {k: np.sign(v.sum(0)) for k, v in x.items()}
  majority = np.sign(sum(s.sum() for s in signs.values()))
  if dialect == 'official' and majority == 0 and reduce != 'max':
    majority = -1
  majority = 1 if dialect == 'mergekit' else majority
  merged = {}
  for k, v in x.items():
    gamma = np.where(signs[k] == 0, majority, signs[k])
    agrees = v * gamma > 0
    total = (v * agrees).sum(0)
    merged[k] = {
      'mean': total / np.maximum(agrees.sum(0), 1),
      'sum': total,
      'max': np.abs(v * agrees).max(0) * gamma,
    }[reduce]
  return merged


def same(found: Any, wanted: Any, atol: float) -> None:
  assert set(found) == set(wanted)
  for k, v in wanted.items():
    np.testing.assert_allclose(found[k], v, rtol=0, atol=atol, err_msg=k)


@pytest.mark.parametrize('dtype', ['float64', 'float32'])
@pytest.mark.parametrize('dialect', ['paper', 'official', 'mergekit'])
@pytest.mark.parametrize('scope', ['global', 'leaf'])
@pytest.mark.parametrize('case', ['generic', 'quantised'])
def test_ties_is_the_definition(
  case: str, scope: str, dialect: str, dtype: str
) -> None:
  x = draws.stacked(case)
  if dtype == 'float32':
    x = {k: x[k] for k in ('w', 's')}
  atol = 1e-12 if dtype == 'float64' else 1e-6
  for density in (0.2, 0.5, 1.0):
    for reduce in ('mean', 'sum', 'max'):
      options = {'scope': scope, 'reduce': reduce, 'dialect': dialect}
      found = merge.ties(draws.jax_tree(x, dtype), density=density, **options)
      same(found, oracle_ties(x, density, **options), atol)


@pytest.mark.parametrize('scope', ['global', 'leaf'])
def test_trim_is_the_definition(scope: str) -> None:
  for case in ('generic', 'quantised'):
    x = draws.stacked(case)
    for dialect, extra in (('paper', 0), ('official', 1), ('mergekit', 0)):
      for density in (1e-9, 0.29, 0.57, 1.0):
        found = merge.trim(
          draws.jax_tree(x),
          density=density,
          scope=scope,
          dialect=dialect,
        )
        same(found, oracle_trim(x, density, scope, extra), 0)


def test_trim_takes_a_density_for_each_model() -> None:
  x = draws.stacked('generic')
  x = draws.jax_tree({k: x[k] for k in ('w', 's')})
  density = [0.1, 0.5, 1.0]
  for scope in ('global', 'leaf'):
    each = merge.trim(x, density=density, scope=scope)
    for t, d in enumerate(density):
      one = merge.trim(x, density=d, scope=scope)
      same(
        {k: v[t] for k, v in each.items()}, {k: v[t] for k, v in one.items()}, 0
      )


@pytest.mark.parametrize('size', [100, 1000])
@pytest.mark.parametrize('density', [0.07, 0.29, 0.57, 0.58])
def test_counts_are_those_of_float64_on_the_host(
  size: int, density: float
) -> None:
  """int(0.29 * 100) is 28 and int(0.57 * 100) is 56, there and here."""
  x = {'w': jnp.arange(1.0, size + 1)[None]}
  for dialect, extra in (('paper', 0), ('official', 1)):
    kept = merge.trim(x, density=density, dialect=dialect)['w']
    assert int((kept != 0).sum()) == int(density * size) + extra


def test_trim_keeps_equal_magnitudes_together() -> None:
  x = {'w': jnp.asarray([[2.0, -2.0, 2.0, 1.0, 0.0]])}
  kept = merge.trim(x, density=0.2)['w']
  assert kept.tolist() == [[2.0, -2.0, 2.0, 0.0, 0.0]]


def test_trim_ranks_each_model_by_itself() -> None:
  x = {'a': jnp.asarray([[1.0, 2.0], [100.0, 1.0]]), 'b': jnp.ones((2, 2)) * 9}
  kept = merge.trim(x, density=0.5)
  assert kept['a'].tolist() == [[0.0, 0.0], [100.0, 0.0]]
  assert kept['b'].tolist() == [[9.0, 9.0], [9.0, 9.0]]


def test_trim_by_leaf_keeps_something_of_every_leaf() -> None:
  x = {'a': jnp.asarray([[1.0, 2.0]]), 'b': jnp.asarray([[90.0, 80.0]])}
  assert merge.trim(x, density=0.5)['a'].tolist() == [[0.0, 0.0]]
  assert merge.trim(x, density=0.5, scope='leaf')['a'].tolist() == [[0.0, 2.0]]


@pytest.mark.parametrize('scope', ['global', 'leaf'])
def test_a_known_density_keeps_the_same_entries_in_jit(scope: str) -> None:
  """0.29 of 100 entries are 28 in float64, and would be 29 in float32."""
  x = np.arange(1, 201, dtype=np.float32).reshape(1, 2, 100)
  fn = lambda d: merge.trim(d, density=0.29, scope=scope)
  with jax.enable_x64(False):
    deltas = {'a': jnp.asarray(x[:, 0]), 'b': jnp.asarray(x[:, 1])}
    eager, jitted = fn(deltas), jax.jit(fn)(deltas)
  for name in deltas:
    np.testing.assert_array_equal(jitted[name], eager[name])
  assert scope == 'global' or np.count_nonzero(jitted['a']) == 28


def test_trim_tells_denormal_numbers_apart() -> None:
  for dtype in (jnp.float32, jnp.float64):
    tiny = float(jnp.finfo(dtype).smallest_subnormal)
    x = {'w': jnp.asarray(np.arange(1, 9)[None] * tiny, dtype)}
    kept = np.asarray(merge.trim(x, density=0.25)['w'])
    assert np.flatnonzero(kept[0]).tolist() == [6, 7]


def test_elect_sign_by_hand() -> None:
  # Sums: 1, -1, 0, 0; signs balance, so a cancelled sum has no sign.
  x = {'w': jnp.asarray([[3.0, -3.0, 2.0, 0.0], [-2.0, 2.0, -2.0, 0.0]])}
  none = [[3.0, -3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
  negative = [[3.0, -3.0, 0.0, 0.0], [0.0, 0.0, -2.0, 0.0]]
  positive = [[3.0, -3.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
  elect = lambda dialect: merge.elect_sign(x, dialect=dialect)['w'].tolist()
  assert elect('paper') == none
  assert elect('official') == negative
  assert elect('mergekit') == positive


def test_signs_are_elected_by_shares_of_the_norm() -> None:
  x = np.random.default_rng(4).normal(size=(3, 40)) * [[1.0], [3.0], [0.2]]
  share = x**2 / (x**2).sum(1, keepdims=True)
  signs = {
    'share': np.sign((np.sign(x) * share).sum(0)),
    'largest': np.sign(x[share.argmax(0), np.arange(40)]),
  }
  # The norms are those of the whole model, here of two leaves.
  tau = {'a': jnp.asarray(x[:, :15]), 'b': jnp.asarray(x[:, 15:])}
  for vote, sign in signs.items():
    found = merge.elect_sign(tau, vote=vote)
    both = np.concatenate([found['a'], found['b']], 1)
    np.testing.assert_allclose(both, x * (x * sign > 0), rtol=1e-6)
  lazy = tree.read(merge.elect_sign(tree.defer(tau), vote='largest'))
  np.testing.assert_array_equal(lazy['a'], found['a'])


def test_a_cancelled_sum_takes_the_majority_of_the_whole_model() -> None:
  x = {
    'a': jnp.asarray([[2.0, -5.0], [-2.0, 1.0]]),
    'b': jnp.asarray([[-1.0, -1.0], [-1.0, 0.5]]),
  }
  for dialect in ('paper', 'official'):
    elected = merge.elect_sign(x, dialect=dialect)
    assert elected['a'].tolist() == [[0.0, -5.0], [-2.0, 0.0]]
    assert elected['b'].tolist() == [[-1.0, -1.0], [-1.0, 0.0]]
  elected = merge.elect_sign(x, dialect='mergekit')
  assert elected['a'].tolist() == [[2.0, -5.0], [0.0, 0.0]]
  # The vote counts signs of sums, not magnitudes: one large plus, three minus.
  flipped = {k: v.at[0].multiply(-1) for k, v in x.items()}
  assert merge.elect_sign(flipped)['b'].tolist() == [[1.0, 1.0], [0.0, 0.5]]


def test_the_official_max_of_a_balanced_cancelled_sum_is_zero() -> None:
  x = {'w': jnp.asarray([[3.0, -3.0, 2.0], [-2.0, 2.0, -2.0]])}
  ties = lambda reduce: merge.ties(
    x, density=1.0, reduce=reduce, dialect='official'
  )['w'].tolist()
  assert ties('max') == [3.0, -3.0, 0.0]
  assert ties('sum') == [3.0, -3.0, -2.0]
  assert ties('mean') == [3.0, -3.0, -2.0]


def test_mean_nonzero_divides_by_the_number_of_nonzero_entries() -> None:
  x = {'w': jnp.asarray([[6.0, 0.0, -1.0], [0.0, 0.0, 3.0], [3.0, 0.0, 1.0]])}
  assert merge.mean_nonzero(x)['w'].tolist() == [4.5, 0.0, 1.0]


def test_ties_by_hand() -> None:
  x = {
    'a': jnp.asarray([[4.0, -1.0], [2.0, 3.0], [-5.0, 2.0]]),
    'b': jnp.asarray([[0.5, 0.25], [0.25, -3.0], [0.5, -3.0]]),
  }
  # density .5 keeps two of four: [4, -1], [3, -3], [-5, -3]; the sums are
  # -1, 2, 0, -6.
  wanted = {
    'mean': {'a': [-5.0, 3.0], 'b': [0.0, -3.0]},
    'sum': {'a': [-5.0, 3.0], 'b': [0.0, -6.0]},
    'max': {'a': [-5.0, 3.0], 'b': [0.0, -3.0]},
  }
  for reduce, values in wanted.items():
    merged = merge.ties(x, density=0.5, reduce=reduce)
    assert {k: v.tolist() for k, v in merged.items()} == values


def test_ties_is_odd_and_bounded_and_idempotent_under_mean() -> None:
  x = draws.jax_tree(draws.stacked('generic'))
  minus = {k: -v for k, v in x.items()}
  for reduce in ('mean', 'max'):
    merged = merge.ties(x, density=0.5, reduce=reduce)
    opposite = merge.ties(minus, density=0.5, reduce=reduce)
    same(opposite, {k: -v for k, v in merged.items()}, 1e-15)
    for k, v in merged.items():
      assert bool((jnp.abs(v) <= jnp.abs(x[k]).max(0) + 1e-15).all())
  twice = {k: jnp.concatenate([v, v]) for k, v in x.items()}
  same(merge.ties(twice, density=0.5), merge.ties(x, density=0.5), 1e-12)


def test_models_that_are_all_zero_merge_to_zero() -> None:
  x = {'w': jnp.zeros((3, 4)), 's': jnp.zeros(3)}
  for dialect in ('paper', 'official', 'mergekit'):
    for scope in ('global', 'leaf'):
      merged = merge.ties(x, density=0.2, scope=scope, dialect=dialect)
      assert tree.norm(merged) == 0


def test_a_leaf_without_entries_is_kept() -> None:
  x = {'w': jnp.asarray([[1.0, 3.0]]), 'none': jnp.zeros((1, 0))}
  for scope in ('global', 'leaf'):
    merged = merge.ties(x, density=0.5, scope=scope)
    assert merged['w'].tolist() == [0.0, 3.0]
    assert merged['none'].shape == (0,)
