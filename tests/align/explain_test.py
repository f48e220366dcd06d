"""``align.explain`` lists the groups of each axis."""

import jax
import jax.numpy as jnp

from wsl import align


def test_a_literal_table():
  def heads(p, x):
    y = jnp.concatenate([jnp.tanh(x @ p['q']).reshape(1, 2, 4)], -1)
    y = jnp.einsum('bhd,hdo->bo', y, p['o'])
    return jnp.tanh(jnp.tanh(y @ p['w']) @ p['w']) * p['s']

  shapes = {'o': (2, 4, 5), 'q': (3, 8), 's': (), 'w': (5, 5)}
  params = {n: jax.ShapeDtypeStruct(s, jnp.float64) for n, s in shapes.items()}
  x = jax.ShapeDtypeStruct((1, 3), jnp.float64)
  apply = lambda p, x: heads(p, x).sum(1)
  text = align.explain(align.find_symmetry(apply, params, x))
  assert text.splitlines() == [
    'leaf  axis  size  group',
    'o     0     2     o:0',
    '      1     4     o:1',
    '      2     5     o:2',
    'q     0     3     pinned: an axis of the input',
    '      1     8     o:0 * o:1',
    's                 a scalar',
    'w     0     5     o:2',
    '      1     5     o:2',
    '',
    'group  size  axes                   depends on  log10 order',
    'o:0    2     2                                  0.3',
    'o:2    5     3, twice in one block              2.1',
    'o:1    4     2                      o:0         2.8',
    '',
    'action    leaves  dimension  not larger, because of',
    'sign o:1  2       signs      tanh of its entries',
    '',
    '3 groups, order 10^5.1',
  ]


def test_sums_and_pinned_factors():
  symmetry = align.Symmetry(
    (align.Factor('a:0.0', 2), align.Factor('a:0.1', 3, 'numbered')),
    (('a', ((('a:0.0', 'a:0.1'), (), ('a:0.0',)),)), ('b', (((),),))),
  )
  lines = align.explain(symmetry).splitlines()
  assert (
    lines[1].split('  ')[-1].strip()
    == 'a:0.0 * [3 pinned: numbered] + 1 + a:0.0'
  )
  assert lines[2].endswith('size 1')
  assert lines[-1] == '1 group, order 10^0.3'


def test_nothing_to_permute():
  symmetry = align.find_symmetry(lambda p, x: x, {}, jnp.ones(2))
  assert align.explain(symmetry).endswith('0 groups, order 10^0.0')


def test_the_operation_that_allows_no_larger_gauge():
  def apply(p, x):
    h = x @ p['in']
    h = h * jax.lax.rsqrt(jnp.mean(h * h, -1, keepdims=True) + 1e-6)
    y = jax.nn.relu(h @ p['a']) @ p['b'] + jnp.tanh(h @ p['c']) @ p['d']
    return y + jnp.exp(h @ p['e']) @ p['f']

  sizes = {'in': (3, 8)} | {n: (8, 5) for n in 'ace'}
  sizes |= {n: (5, 2) for n in 'bdf'}
  params = {n: jax.ShapeDtypeStruct(s, jnp.float64) for n, s in sizes.items()}
  x = jax.ShapeDtypeStruct((1, 3), jnp.float64)
  text = align.explain(align.find_symmetry(apply, params, x))
  assert text.split('\n\n')[2:4] == [
    'action        leaves  dimension  not larger, because of\n'
    'scale a:1     2       5          max of its entries\n'
    'sign c:1      2       signs      tanh of its entries\n'
    'rotation a:0  4       28         reduce_sum of its entries',
    'factor  no action, because of\ne:1     exp of its entries',
  ]
