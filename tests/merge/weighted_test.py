"""Weights for each model in sum, elect_sign, mean_nonzero and ties."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import merge, tree

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
WEIGHTS = [
  np.asarray([0.3, 2.0, 0.7]),
  np.asarray([1.0, -1.5, 0.25]),
  np.asarray([0.0, 1.0, 1.0]),
]


def deltas(seed: int = 0) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(seed)
  shapes = {'w': (3, 7, 5), 'b': (3, 4), 'scalar': (3,)}
  return {k: rng.standard_normal(s) for k, s in shapes.items()}


def oracle(
  x: np.ndarray, weights: np.ndarray, density: float
) -> dict[str, np.ndarray]:
  """The weighted TIES of mergekit on one leaf, step by step."""
  flat = np.abs(x.reshape(3, -1))
  k = max(1, int(density * flat.shape[1]))
  bound = np.sort(flat, 1)[:, -k].reshape(-1, *[1] * (x.ndim - 1))
  trimmed = x * (np.abs(x) >= bound)
  w = weights.reshape(-1, *[1] * (x.ndim - 1))
  votes = w * trimmed
  majority = np.where(votes.sum(0) >= 0, 1, -1)
  mask = np.sign(votes) == majority
  share = (w * mask).sum(0)
  total = (votes * mask).sum(0)
  return {'sum': total, 'mean': total / np.where(share == 0, 1, share)}


@pytest.mark.parametrize('weights', WEIGHTS, ids=str)
@pytest.mark.parametrize('reduce', ['sum', 'mean'])
@pytest.mark.parametrize('density', [0.4, 1.0])
def test_ties_weighs_the_election_and_the_mean(
  weights: np.ndarray, reduce: str, density: float
) -> None:
  x = deltas()
  found = merge.ties(
    jax.tree.map(jnp.asarray, x),
    density=density,
    scope='leaf',
    reduce=reduce,
    dialect='mergekit',
    weights=weights,
  )
  for name, leaf in x.items():
    wanted = oracle(leaf, weights, density)[reduce]
    np.testing.assert_allclose(found[name], wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
  ('method', 'vote'), [('total', 'sum'), ('frequency', 'count')]
)
def test_the_dialect_of_peft(method: str, vote: str) -> None:
  golden = np.load(GOLDEN / 'peft_ties.npz')
  found = merge.ties(
    {'w': jnp.asarray(golden['x'])},
    density=float(golden['density']),
    scope='leaf',
    dialect='peft',
    weights=golden['weights'],
    vote=vote,
  )
  np.testing.assert_allclose(found['w'], golden[method], rtol=1e-6, atol=1e-7)


def test_equal_weights_change_nothing() -> None:
  x = jax.tree.map(jnp.asarray, deltas())
  for dialect in ('paper', 'official', 'mergekit'):
    plain = merge.ties(x, density=0.5, dialect=dialect)
    weighted = merge.ties(x, density=0.5, dialect=dialect, weights=[1, 1, 1])
    for name in x:
      np.testing.assert_array_equal(plain[name], weighted[name])


def test_weights_that_cancel_in_the_mean_are_replaced_by_one() -> None:
  x = {'w': jnp.asarray([[1.0], [-1.0]])}
  options = {'density': 1.0, 'dialect': 'mergekit', 'weights': [1.0, -1.0]}
  assert merge.ties(x, **options)['w'].tolist() == [2.0]
  # By steps: the votes 1 and 1 agree, their sum is 2, their weights cancel.
  elected = merge.elect_sign(x, dialect='mergekit', weights=[1.0, -1.0])
  assert elected['w'].tolist() == [[1.0], [-1.0]]


def test_sum_is_linear_in_the_weights() -> None:
  x = deltas()
  for weights in WEIGHTS:
    found = merge.sum(jax.tree.map(jnp.asarray, x), weights=weights)
    for name, leaf in x.items():
      wanted = np.einsum('t,t...->...', weights, leaf)
      np.testing.assert_allclose(found[name], wanted, rtol=1e-13, atol=1e-15)


def test_the_weights_are_traced_and_differentiable() -> None:
  x = jax.tree.map(jnp.asarray, deltas())

  @jax.jit
  def loss(weights: jax.Array) -> jax.Array:
    merged = merge.ties(x, density=0.5, weights=weights)
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(merged))

  weights = jnp.asarray([0.5, 1.0, 2.0])
  slope = jax.grad(loss)(weights)
  step = 1e-6
  for t in range(3):
    ahead, behind = weights.at[t].add(step), weights.at[t].add(-step)
    wanted = (loss(ahead) - loss(behind)) / (2 * step)
    np.testing.assert_allclose(slope[t], wanted, rtol=1e-6, atol=1e-7)


def test_leaves_on_demand_give_the_same() -> None:
  x = jax.tree.map(jnp.asarray, deltas())
  weights = WEIGHTS[0]
  lazy = merge.ties(tree.defer(x), density=0.5, weights=weights)
  assert tree.on_demand(lazy)
  eager = merge.ties(x, density=0.5, weights=weights)
  for name, leaf in tree.read(lazy).items():
    np.testing.assert_array_equal(leaf, eager[name])


@pytest.mark.parametrize('method', ['sum', 'elect_sign', 'mean_nonzero'])
def test_wrong_weights_are_refused(method: str) -> None:
  call = getattr(merge, method)
  x = {'w': jnp.ones((2, 3))}
  with pytest.raises(ValueError, match=rf'{method}: weights has shape \(3,\)'):
    call(x, weights=[1, 2, 3])
  with pytest.raises(ValueError, match=rf'{method}: weights has shape \(\)'):
    call(x, weights=2.0)
  with pytest.raises(ValueError, match='expected finite'):
    call(x, weights=[1, np.inf])
  with pytest.raises(ValueError, match=r'is .*, expected a number'):
    call(x, weights=['a', 'b'])


def test_max_is_not_weighted() -> None:
  with pytest.raises(ValueError, match=r"ties\(reduce='max'\): has no"):
    merge.ties(
      {'w': jnp.ones((2, 3))}, density=0.5, reduce='max', weights=[1, 1]
    )


def test_half_precision_is_weighed_in_float32() -> None:
  half = {'w': jnp.asarray(deltas()['w'], jnp.bfloat16)}
  found = merge.sum(half, weights=[0.1, 0.2, 0.3])['w']
  wide = np.asarray(half['w'], np.float32)
  wanted = np.einsum('t,t...->...', np.float32([0.1, 0.2, 0.3]), wide)
  assert found.dtype == jnp.bfloat16
  np.testing.assert_array_equal(found, wanted.astype(jnp.bfloat16))
