"""Group laws of permutations, on symmetries written by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.align import nested
from tests.align.find import oracle
from wsl import align
from wsl.align._gauges import elements, short_names

F = align.Factor

SYMMETRY = align.Symmetry(
  nested.FACTORS, nested.AXES, interleaved=nested.INTERLEAVED
)


def _params(seed=0):
  rng = np.random.default_rng(seed)
  shapes = nested.SHAPES
  return {n: jnp.asarray(rng.normal(size=s)) for n, s in shapes.items()}


def _draw(seed):
  return align.random(SYMMETRY, jax.random.key(seed), gauges=('permutation',))


def _equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_literal_wreath():
  heads, units = F('x:0.0', 2), F('x:0.1', 2, outer=('x:0.0',))
  symmetry = align.Symmetry((heads, units), (('x', ((('x:0.0', 'x:0.1'),),)),))
  permutation = {
    'x:0.0': jnp.asarray([1, 0]),
    'x:0.1': jnp.asarray([[1, 0], [0, 1]]),
  }
  x = {'x': jnp.asarray([1.0, 2.0, 3.0, 4.0])}
  moved = align.permute(x, permutation, symmetry=symmetry)
  assert moved['x'].tolist() == [4.0, 3.0, 1.0, 2.0]


def test_permute_equals_index_arithmetic():
  params, g = _params(), jax.tree.map(np.asarray, _draw(1))
  q = np.asarray(params['q']).reshape(5, 3, 4)
  wanted = np.stack(
    [q[:, g['q:1.0'][h], g['q:1.1'][h]] for h in range(3)], axis=1
  )
  moved = align.permute(params, g, symmetry=SYMMETRY)
  np.testing.assert_array_equal(moved['q'], wanted.reshape(5, 12))
  r = np.asarray(params['r'])[g['r:0']][:, g['r:0']]
  np.testing.assert_array_equal(moved['r'], r)
  s = np.asarray(params['s']).reshape(2, 3, 2)
  for layer in range(2):
    for i in range(3):
      source = s[layer, g['s:1.0'][layer, i], g['s:1.1'][layer, i]]
      found = moved['s'].reshape(2, 3, 2)[layer, i]
      np.testing.assert_array_equal(found, source)
  f = np.asarray(params['f'])[:, g['r:0']]
  np.testing.assert_array_equal(moved['f'][:5], f[:5])
  np.testing.assert_array_equal(moved['f'][5:11], f[5:11][g['r:0']])
  # Interleaved: heads * (units + r), layers * (s * (t + r) + inputs).
  heads, rest = np.split(np.asarray(params['i']), [30])
  for h, old in enumerate(heads.reshape(3, 10)[g['q:1.0']]):
    wanted = [*old[:4][g['q:1.1'][h]], *old[4:][g['r:0']]]
    np.testing.assert_array_equal(moved['i'][10 * h :][:10], wanted)
  for layer, old in enumerate(rest.reshape(2, 29)):
    order = g['s:1.0'][layer]
    for i, row in enumerate(old[:24].reshape(3, 8)[order]):
      wanted = [*row[:2][g['s:1.1'][layer, i]], *row[2:][g['r:0']]]
      start = 30 + 29 * layer + 8 * i
      np.testing.assert_array_equal(moved['i'][start:][:8], wanted)
    wanted = moved['i'][30 + 29 * layer + 24 :][:5]
    np.testing.assert_array_equal(wanted, old[24:])
  wanted = oracle.move(params, g, SYMMETRY)
  jax.tree.map(np.testing.assert_array_equal, moved, wanted)


def test_the_inverse_restores_the_model():
  params, g = _params(), _draw(1)
  inverse = align.invert(g, symmetry=SYMMETRY)
  there = align.permute(params, g, symmetry=SYMMETRY)
  assert not np.array_equal(there['q'], params['q'])
  _equal(align.permute(there, inverse, symmetry=SYMMETRY), params)
  both = align.compose(g, inverse, symmetry=SYMMETRY)
  _equal(both, align.identity(SYMMETRY))


def test_composition_equals_permuting_twice():
  params, g, h = _params(), _draw(1), _draw(2)
  one = align.permute(params, g, symmetry=SYMMETRY)
  two = align.permute(one, h, symmetry=SYMMETRY)
  both = align.compose(g, h, symmetry=SYMMETRY)
  _equal(align.permute(params, both, symmetry=SYMMETRY), two)
  other = align.compose(h, g, symmetry=SYMMETRY)
  assert any(not np.array_equal(both[n], other[n]) for n in both)


def test_composition_is_associative():
  f, g, h = _draw(1), _draw(2), _draw(3)
  compose = lambda a, b: align.compose(a, b, symmetry=SYMMETRY)
  _equal(compose(compose(f, g), h), compose(f, compose(g, h)))


def test_random_draws_each_table_independently():
  g = align.random(SYMMETRY, jax.random.key(0), gauges=('permutation',))
  assert {n: x.shape for n, x in g.items()} == {
    'q:1.0': (3,),
    'q:1.1': (3, 4),
    'r:0': (6,),
    's:1.0': (2, 3),
    's:1.1': (2, 3, 2),
  }
  for table in g.values():
    expected = np.broadcast_to(np.arange(table.shape[-1]), table.shape)
    np.testing.assert_array_equal(np.sort(table, -1), expected)
  assert any(not np.array_equal(g[n], _draw(5)[n]) for n in g)


def test_order():
  # 3! (4!)^3 6! (3!)^2 (2!)^6
  order = 6 * 24**3 * 720 * 36 * 64
  assert np.isclose(SYMMETRY.log10_order, np.log10(order), rtol=1e-12)


def test_symmetry_survives_json():
  assert align.from_json(align.to_json(SYMMETRY)) == SYMMETRY
  with pytest.raises(ValueError, match='no symmetry written by to_json'):
    align.from_json('{"factors": []}')
  # A file from before interleaved axes; and one whose runs share nothing.
  plain = align.Symmetry(SYMMETRY.factors, SYMMETRY.axes)
  assert 'interleaved' not in align.to_json(plain)
  assert align.from_json(align.to_json(plain)) == plain
  wrong = dataclasses.replace(
    SYMMETRY, interleaved=(align.Interleaved('i', 0, 1, 2, 1),)
  )
  with pytest.raises(ValueError, match='share no factors'):
    align.from_json(align.to_json(wrong))


def test_permute_runs_under_jit_and_keeps_dtype():
  params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), _params())
  move = lambda p, g: align.permute(p, g, symmetry=SYMMETRY)
  moved = jax.jit(move)(params, _draw(1))
  _equal(moved, move(params, _draw(1)))
  assert moved['q'].dtype == jnp.bfloat16


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda g: g | {'zz': g['r:0']}, "permute: permutation has a group 'zz'"),
    (
      lambda g: {'r:0': g['r:0']},
      "permute: permutation lacks the group 'q:1.0'",
    ),
    (lambda g: g | {'r:0': jnp.arange(5)}, r"'r:0' has shape \(5,\)"),
  ],
)
def test_a_permutation_of_another_symmetry(change, message):
  with pytest.raises(ValueError, match=message):
    align.permute(_params(), change(_draw(0)), symmetry=SYMMETRY)


def test_a_model_of_another_width():
  params = _params() | {'r': jnp.ones((7, 7))}
  with pytest.raises(ValueError, match="leaf 'r' has shape"):
    align.permute(params, _draw(0), symmetry=SYMMETRY)


def test_equal_leaves_of_layers_share_a_program():
  # Two layers: heads with units inside, and scales of the units.
  factors, axes, actions = [], [], []
  for i in 'ab':
    heads, units = F(f'{i}:0.0', 2), F(f'{i}:0.1', 3, outer=(f'{i}:0.0',))
    factors += [heads, units]
    axes.append((i, (((heads.name, units.name),),)))
    power = align.Power(i, 0, 0, 1, 1.0)
    actions.append(align.Action(f'scale {i}', 'scale', units.name, (power,)))
  symmetry = align.Symmetry(tuple(factors), tuple(axes), tuple(actions))
  g = align.random(symmetry, jax.random.key(0))
  static = []
  for i in 'ab':
    acts = elements.acts_of(symmetry, i, g)
    names = (f'{i}:0.0', f'{i}:0.1', f'scale {i}')
    own = {n: g[n] for n in names}
    layout, acts, tables = short_names.rename(symmetry.layout(i), acts, own)
    static.append((layout, acts, sorted(tables)))
  assert static[0] == static[1]
  assert static[0][2] == ['a0', 'f0', 'f1']
