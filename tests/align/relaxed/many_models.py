"""Symmetries, models and the objective by its definition."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from wsl import align
from wsl.align import _soft
from wsl.align._relaxed import frank_wolfe

F = align.Factor


def _dense(inputs, *units, outputs=None):
  """Returns the symmetry of dense layers a, b, ... with free hidden units."""
  factors = [F('a:0', inputs, 'an input')]
  factors += [F(f'{leaf}:1', n) for leaf, n in zip('abc', units)]
  if outputs is not None:
    factors += [F(f'{"abc"[len(units)]}:1', outputs, 'an output')]
  axes = [((f.name,),) for f in factors]
  return align.Symmetry(
    tuple(factors), tuple(zip('abc', itertools.pairwise(axes)))
  )


PLAIN = _dense(5, 7, 6, outputs=2)  # an MLP with two hidden layers
# Three heads, two dependent groups in one leaf, and a recurrent matrix.
NESTED = align.Symmetry(
  factors=(
    F('a:0', 5, 'an input'),
    F('a:1.0', 3),
    F('a:1.1', 4, outer=('a:1.0',)),
    F('b:1', 2, outer=('a:1.0',)),
    F('r:0', 4),
  ),
  axes=(
    ('a', ((('a:0',),), (('a:1.0', 'a:1.1'),))),
    ('b', ((('a:1.0', 'a:1.1'),), (('b:1',),))),
    ('r', ((('r:0',),), (('r:0',),))),
    ('s', ((('r:0',),), (('a:1.0', 'a:1.1'),))),
  ),
)
SHAPES = {
  PLAIN: {'a': (5, 7), 'b': (7, 6), 'c': (6, 2)},
  NESTED: {'a': (5, 12), 'b': (12, 2), 'r': (4, 4), 's': (4, 12)},
}
SOFT = {'a:1': np.full((7, 7), 0.2), 'b:1': np.full((6, 6), 0.2)}


def draw_params(symmetry, seed):
  rng = np.random.default_rng(seed)
  return {
    n: jnp.asarray(rng.normal(size=s)) for n, s in SHAPES[symmetry].items()
  }


def draw_models(symmetry, count, seed=0):
  each = [draw_params(symmetry, seed + i) for i in range(count)]
  return {n: jnp.stack([p[n] for p in each]) for n in each[0]}


def draw_matrices(symmetry, count, seed):
  return frank_wolfe.initial_matrices(
    'center', count, symmetry, jax.random.key(seed), np.dtype(np.float64)
  )


def pair_products(moved):
  """Returns the objective by its definition, the sum over all pairs."""
  count = len(next(iter(moved.values())))
  return sum(
    jnp.vdot(x[p], x[q])
    for p, q in itertools.combinations(range(count), 2)
    for x in moved.values()
  )


def objective_of(symmetry, models, matrices):
  apply = jax.vmap(lambda p, m: _soft.apply(p, m, symmetry=symmetry))
  return pair_products(apply(models, matrices))


def agreement_of(models, permutations, symmetry):
  moved = [
    align.permute(m, g, symmetry=symmetry) for m, g in zip(models, permutations)
  ]
  return float(pair_products(jax.tree.map(lambda *x: jnp.stack(x), *moved)))
