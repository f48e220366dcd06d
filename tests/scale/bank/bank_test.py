"""Banks: storage, absent leaves, tied leaves, and bases that do not match."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import adapters, deltas, merge, scale, tree

W = np.asarray([[1.0, 2.0], [3.0, 4.0]])


def base() -> Any:
  return {
    'w': jnp.asarray(W),
    'b': jnp.asarray([0.0, 0.0]),
    'step': jnp.asarray(3),
  }


def moved(by: float) -> Any:
  return {k: x + jnp.asarray(by, x.dtype) for k, x in base().items()}


def test_differences_by_hand() -> None:
  bank = scale.bank(base(), [moved(1.0), moved(2.0)], names=['a', 'b'])
  assert bank.names == ('a', 'b')
  assert len(bank) == 2
  assert bank.leaves['b'].tolist() == [[1.0, 1.0], [2.0, 2.0]]
  assert list(bank.leaves) == ['b', 'w']


def test_integer_leaves_are_those_of_the_base_without_coefficient() -> None:
  bank = scale.bank(base(), [moved(1.0)])
  coefs = scale.init(bank, by='leaf', value=1.0)
  assert list(coefs.values) == ['b', 'w']
  found = scale.compose(base(), bank, coefs)
  assert found['step'] == 3
  assert found['step'].dtype == base()['step'].dtype


def test_storage_is_at_most_as_wide_as_the_difference() -> None:
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), {'w': base()['w']})
  assert scale.bank(half, [half | {'w': half['w'] + 1}]).leaves['w'].dtype == (
    jnp.float32
  )
  bank = scale.bank(base(), [moved(1.0)], dtype=jnp.bfloat16)
  assert bank.leaves['w'].dtype == jnp.bfloat16
  assert scale.bank(base(), [moved(1.0)]).leaves['w'].dtype == jnp.float64


def test_an_absent_leaf_takes_no_memory() -> None:
  full = scale.bank(base(), [moved(1.0), moved(2.0)])
  some = scale.bank(base(), [moved(1.0) | {'b': None}, moved(2.0)])
  none = scale.bank(base(), [moved(t) | {'b': None} for t in (1.0, 2.0)])
  nbytes = lambda bank: sum(x.nbytes for x in jax.tree.leaves(bank.leaves))
  assert nbytes(full) == (8 + 4) * 8
  assert nbytes(some) == (8 + 2) * 8
  assert nbytes(none) == 8 * 8
  c = {'w': jnp.asarray([1.0, 2.0]), 'b': jnp.asarray([5.0, 7.0]), 'step': 0.0}
  assert scale.compose(base(), some, c)['b'].tolist() == [14.0, 14.0]
  assert scale.compose(base(), none, c)['b'].tolist() == [0.0, 0.0]
  assert list(scale.init(none, by='leaf').values) == ['w']
  gradient = jax.grad(lambda c: scale.compose(base(), some, c)['b'].sum())(
    scale.init(some, by='leaf')
  )
  assert gradient['b'].tolist() == [0.0, 4.0]


def test_the_bases_own_array_is_absent() -> None:
  b = base()
  assert list(scale.bank(b, [b | {'w': b['w'] + 1}]).leaves) == ['w']


def test_excluded_leaves_are_those_of_the_base() -> None:
  bank = scale.bank(base(), [moved(1.0)], leaves='w')
  assert scale.compose(base(), bank, 1.0)['b'].tolist() == [0.0, 0.0]


def test_statistics_are_scaled_unless_excluded() -> None:
  model = lambda var: {
    'params': {'w': jnp.ones(2)},
    'batch_stats': {'var': jnp.asarray(var), 'count': jnp.asarray(9)},
  }
  b, tuned = model([1.0, 2.0]), model([3.0, 2.0])
  tuned['params']['w'] += 1
  found = scale.compose(b, scale.bank(b, [tuned]), -1.0)
  assert found['batch_stats']['var'].tolist() == [-1.0, 2.0]  # as documented
  assert found['batch_stats']['count'] == 9
  bank = scale.bank(b, [tuned], leaves='^params')
  assert list(bank.leaves) == ['params/w']
  found = scale.compose(b, bank, -1.0)
  assert found['batch_stats']['var'].tolist() == [1.0, 2.0]
  assert found['params']['w'].tolist() == [0.0, 0.0]


def test_tied_leaves_share_a_coefficient_and_an_array() -> None:
  tied = lambda x: {'embed': x, 'mid': x[0], 'out': x}
  b = tied(jnp.asarray(W))
  model = tied(jnp.asarray(W + 1))
  bank = scale.bank(b, [model])
  assert list(bank.leaves) == ['embed', 'mid']
  coefs = scale.init(bank, by='leaf', value=2.0)
  assert list(coefs.values) == ['embed', 'mid']
  found = scale.compose(b, bank, coefs)
  assert found['out'] is found['embed']
  assert found['out'].tolist() == (W + 2).tolist()
  f = lambda p: (p['embed'] * 2.0 + p['out'] * 3.0).sum()
  direct = jax.jit(
    jax.grad(lambda c, b, k: f(scale.compose(b, k, c))),
  )(coefs, b, bank)
  assert direct['embed'].tolist() == [20.0]
  gradient = jax.grad(f)(found)
  assert scale.pull_back(bank, gradient, coefs)['embed'].tolist() == [20.0]
  delta = scale.combine(bank, coefs)
  assert delta['out'] is delta['embed']


def test_the_old_name_of_tied_leaves_still_works() -> None:
  x = jnp.ones(2)
  bank = scale.bank({'a': x, 'b': x}, [{'a': x + 1, 'b': x + 1}])
  assert bank.tied == (('b', 'a'),)
  with pytest.warns(DeprecationWarning, match=r'Bank\.tied'):
    assert bank.ties == bank.tied


def test_a_model_that_unties_tied_leaves_is_refused() -> None:
  x = jnp.asarray(W)
  with pytest.raises(ValueError, match="'out' and 'embed' are one array"):
    scale.bank({'embed': x, 'out': x}, [{'embed': x + 1, 'out': x + 2}])


def test_a_subset_keeps_names_and_rows() -> None:
  models = [moved(1.0), moved(2.0) | {'b': None}, moved(3.0)]
  bank = scale.bank(base(), models, names=['a', 'b', 'c'])
  few = scale.subset(bank, ['c', 'b'])
  assert few.leaves['w'][:, 0, 0].tolist() == [3.0, 2.0]
  assert few.leaves['b'][1] is None
  assert 'b' not in scale.subset(bank, ['b']).leaves
  with pytest.raises(ValueError, match=r"no vector 'cc' .*mean 'c'"):
    scale.subset(bank, ['cc'])
  with pytest.raises(ValueError, match='no names given'):
    scale.subset(bank, [])


def test_ranks_may_differ() -> None:
  rows = [scale.LowRank(jnp.ones((2, r)), jnp.ones((r, 2))) for r in (1, 3)]
  bank = scale.bank({'w': jnp.asarray(W)}, [{'w': row} for row in rows])
  assert bank.leaves['w'].left.shape == (2, 2, 3)
  found = scale.compose({'w': jnp.asarray(W)}, bank, 1.0)
  assert found['w'].tolist() == (W + 4).tolist()


def test_a_leaf_may_mix_low_rank_and_dense_vectors() -> None:
  b = {'w': jnp.asarray(W)}
  low = scale.LowRank(jnp.ones((2, 1)), jnp.ones((1, 2)))
  bank = scale.bank(b, [{'w': low}, {'w': b['w'] + 2}, {'w': None}])
  coefs = {'w': jnp.asarray([1.0, 10.0, 100.0])}
  assert scale.compose(b, bank, coefs)['w'].tolist() == (W + 21).tolist()
  found = scale.pull_back(bank, {'w': jnp.ones((2, 2))}, coefs)
  assert found['w'].tolist() == [4.0, 8.0, 0.0]


VIEWS = {
  'in_out': ((4, 6), tree.Matrix(rows=(0,), columns=(1,))),
  'out_in': ((6, 4), tree.Matrix(rows=(1,), columns=(0,))),
  'layers': ((2, 4, 6), tree.Matrix(batch=(0,), rows=(1,), columns=(2,))),
}


def lora(seed: int, name: str, rank: int) -> adapters.Factors:
  draw, (shape, view) = np.random.default_rng(seed).normal, VIEWS[name]
  lead = (2,) if name == 'layers' else ()
  a, b = draw(size=(*lead, rank, 4)), draw(size=(*lead, 6, rank))
  return adapters.Factors(jnp.asarray(a), jnp.asarray(b), 0.5, shape, view)


def test_adapters_are_vectors_and_stay_factored() -> None:
  loras = [{k: lora(t, k, 1 + t) for k in VIEWS} for t in range(2)]
  base = {
    k: jnp.asarray(np.random.default_rng(9).normal(size=shape))
    for k, (shape, _) in VIEWS.items()
  }
  found = scale.bank(base, loras).leaves
  assert all(isinstance(found[k], scale.LowRank) for k in ('in_out', 'out_in'))
  stacked = scale.as_bank(base, adapters.stack(loras))
  coefs = jnp.asarray([0.3, -2.0])
  composed = scale.compose(base, stacked, coefs)
  for name, x in base.items():
    rows = [np.asarray(deltas.dense(one[name])) for one in loras]
    wanted = np.asarray(x) + 0.3 * rows[0] - 2.0 * rows[1]
    np.testing.assert_allclose(composed[name], wanted, atol=1e-12)
    same = zip(*(jax.tree.leaves(v[name]) for v in (found, stacked.leaves)))
    if name != 'layers':  # factors of several matrices are multiplied
      assert all(np.array_equal(u, v) for u, v in same)
      continue
    for row, wanted in zip(found[name], rows):
      np.testing.assert_array_equal(row, wanted)
  other = {'out_in': base['in_out']}
  one = {'out_in': loras[0]['out_in']}
  refuse(lambda: scale.bank(other, [one]), 'has factors (6, 1) and (1, 4)')
  linear = scale.linearise(
    lambda p, x: p['out_in'] @ x, {'out_in': base['out_in']}
  )
  moved = base['out_in'] + deltas.dense(one['out_in'])
  np.testing.assert_allclose(linear(one, jnp.ones(4)), moved.sum(1), atol=1e-12)


def test_factors_on_demand_are_read() -> None:
  lazy = lambda *s: tree.Stored(lambda: np.ones(s), s, np.dtype(float))
  b = {'w': jnp.asarray(W)}
  low = scale.LowRank(lazy(2, 1), lazy(1, 2))  # type: ignore[arg-type]
  bank = scale.bank(b, [{'w': low}, {'w': None}])
  assert scale.compose(b, bank, 3.0)['w'].tolist() == (W + 3).tolist()
  base = {'w': tree.Stored(lambda: W, (2, 2), np.dtype(float))}
  found = scale.compose(base, scale.bank(base, [{'w': low}]), 3.0)
  assert np.asarray(tree.read(found['w'])).tolist() == (W + 3).tolist()


def test_leaves_on_demand_stay_on_demand() -> None:
  reads = []

  def stored(x: np.ndarray, name: str) -> tree.Stored:
    fetch = lambda: reads.append(name) or x
    return tree.Stored(fetch, x.shape, x.dtype)

  models = [{'w': stored(W + t, f'model {t}')} for t in (1, 2)]
  b = {'w': stored(W, 'base')}
  bank = scale.bank(b, models)
  assert not reads
  coefs = scale.init(bank, by='leaf', value=1.0)
  found = scale.compose(b, bank, coefs)
  assert tree.on_demand(found)
  assert not reads
  assert np.asarray(tree.read(found['w'])).tolist() == (W + 3).tolist()
  assert sorted(reads) == ['base', 'model 1', 'model 2']


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda b: b | {'w': b['w'].at[0, 1].add(1e-6)}, "leaf 'w' has other val"),
    (lambda b: b | {'w': b['w'].T}, "leaf 'w' has other values"),
    (lambda b: b | {'b': b['b'][:1]}, r"leaf 'b' is float64\[2\] in the bank"),
    (lambda b: b | {'x': b['b']}, "only the base given has leaf 'x'"),
    (lambda b: {'w': b['w'], 'b': b['b']}, "only the bank has leaf 'step'"),
    (
      lambda b: b | {'w': b['w'].astype(jnp.float32)},
      r"is float64\[2, 2\] in the bank's, float32",
    ),
  ],
)
def test_another_base_is_refused(change: Any, message: str) -> None:
  bank = scale.bank(base(), [moved(1.0)])
  with pytest.raises(ValueError, match='whose base differs.*' + message):
    scale.compose(change(base()), bank, 0.5)
  scale.compose(base(), bank, 0.5)


def test_banks_of_one_layout_compile_once() -> None:
  count = 0

  @jax.jit
  def run(b: Any, bank: Any) -> Any:
    nonlocal count
    count += 1
    return scale.compose(b, bank, 0.5)

  for shift in (1.0, 2.0):
    b = jax.tree.map(lambda x, s=shift: x + jnp.asarray(s, x.dtype), base())
    run(b, scale.bank(b, [moved(5.0)]))
  assert count == 1


def test_bad_models_are_refused() -> None:
  refuse(lambda: scale.bank(base(), []), 'bank: no task vectors')
  refuse(
    lambda: scale.bank(base(), {'a': moved(1.0)}),  # type: ignore[arg-type]
    'the models are a dict',
  )
  refuse(
    lambda: scale.bank(base(), [{'w': base()['w']}]),
    "model '0': no leaf 'b' as in the base",
  )
  refuse(
    lambda: scale.bank(base(), [moved(1.0) | {'w': jnp.ones((3, 2))}]),
    "model '0': leaf 'w' has shape (3, 2)",
  )
  refuse(
    lambda: scale.bank(base(), [moved(1.0) | {'w': jnp.full((2, 2), jnp.nan)}]),
    "model '0': leaf 'w' holds 4 NaN",
  )
  refuse(
    lambda: scale.bank(base(), [moved(1.0)] * 2, names=['a', 'a']),
    'expected 2 different names',
  )
  refuse(
    lambda: scale.bank(base(), [moved(1.0)], dtype=np.int8), 'in a float dtype'
  )
  low = scale.LowRank(jnp.ones((2, 1)), jnp.ones((1, 3)))
  refuse(
    lambda: scale.bank(base(), [moved(1.0) | {'w': low}]),
    "leaf 'w' has factors (2, 1) and (1, 3)",
  )
  refuse(lambda: scale.bank(base(), [base() | dict.fromkeys('wb')]), 'nothing')
  refuse(
    lambda: scale.as_bank(base(), dict.fromkeys(('w', 'b', 'step'))),
    'as_bank: no task vectors',
  )
  stacks = {'w': jnp.ones((2, 2)), 'b': jnp.ones((2, 2)), 'step': None}
  refuse(
    lambda: scale.as_bank(base(), stacks), "leaf 'w' has shape (2, 2), expected"
  )


def refuse(call: Any, message: str) -> None:
  with pytest.raises(ValueError, match=re.escape(message)) as caught:
    call()
  assert '\n' not in str(caught.value)


def test_adamerging_plus_composes_what_ties_adds() -> None:
  base = {'w': np.zeros(40)}
  stack = np.random.RandomState(0).randn(3, 40)
  # The authors: the 20 % largest entries, then those of the sign of the sum.
  cut = np.sort(np.abs(stack), axis=1)[:, -8]
  trimmed = np.where(np.abs(stack) >= cut[:, None], stack, 0)
  kept = np.where(trimmed * np.sign(trimmed.sum(0)) > 0, trimmed, 0)
  assert (kept != trimmed).any()
  vectors = merge.elect_sign(merge.trim({'w': stack}, density=0.2))
  bank = scale.as_bank(base, vectors)
  found = scale.compose(base, bank, scale.init(bank, by='leaf', value=0.3))
  np.testing.assert_allclose(found['w'], 0.3 * kept.sum(0), atol=1e-12)


@pytest.mark.parametrize('rows', ['full', 'absent', 'low rank', 'on demand'])
def test_integers_that_differ_are_refused(rows: str) -> None:
  """Quantised weights would be the base's under scaled scales."""
  codes = np.asarray([1, 2], np.int8)
  start = base() | {'codes': codes}
  other = moved(1.0) | {'codes': codes + np.int8(1)}
  if rows == 'absent':
    other['b'] = None
  if rows == 'low rank':
    other['w'] = scale.LowRank(jnp.ones((2, 1)), jnp.ones((1, 2)))
  if rows == 'on demand':
    leaf = lambda x: tree.Stored(lambda: x, x.shape, x.dtype)
    other = jax.tree.map(leaf, other)
  with pytest.raises(
    ValueError, match=r"^bank: model 'a': integer leaf 'codes'.*dequantise"
  ) as error:
    scale.bank(start, [other], names=['a'])
  assert '\n' not in str(error.value)
  scale.bank(start, [other | {'codes': codes}], names=['a'])
  scale.bank(start, [other | {'codes': None}], names=['a'])
