"""Selection of task vectors by score."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import scale

BASE = {'a': np.zeros(2), 'b': np.zeros(1)}
ROWS = ([3.0, 0.0, 0.0], [-1.0, -1.0, 4.0], [0.0, 2.0, -5.0])
MODELS = [{'a': np.asarray(r[:2]), 'b': np.asarray(r[2:])} for r in ROWS]
BANK = scale.bank(BASE, MODELS, names=['x', 'y', 'z'])
GRADIENT = {'a': jnp.asarray([1.0, 2.0]), 'b': jnp.asarray([0.5])}
# |<g, tau>|: a: 3, 3, 4; b: 0, 2, 2.5


def test_vectors_by_the_sum_over_leaves() -> None:
  found = scale.select(BANK, GRADIENT, budget=2)
  assert found.bank.names == ('y', 'z')
  assert found.scores == {'x': 3.0, 'y': 5.0, 'z': 6.5}
  assert found.bank.leaves['b'].tolist() == [[4.0], [-5.0]]


def test_each_block_selects_its_own_vectors() -> None:
  found = scale.select(BANK, GRADIENT, budget=1, by='block')
  assert found.scores['b'] == {'x': 0.0, 'y': 2.0, 'z': 2.5}
  found = scale.select(
    BANK, GRADIENT | {'b': -GRADIENT['b']}, budget=2, by='block'
  )
  held = {
    name: [row is not None for row in rows]
    for name, rows in found.bank.leaves.items()
  }
  assert held == {'a': [True, False, True], 'b': [False, True, True]}
  assert sum(x.size for x in jax.tree.leaves(found.bank.leaves)) == 6
  coefs = scale.init(found.bank, by='leaf', value=1.0)
  params = scale.compose(BASE, found.bank, coefs)
  assert params['a'].tolist() == [3.0, 2.0]
  assert params['b'].tolist() == [-1.0]


def test_features_by_their_cosine() -> None:
  target = np.asarray([1.0, 0.0])
  others = np.asarray([[0.0, 1.0], [5.0, 5.0], [1.0, 0.1]])
  found = scale.select(
    BANK, None, budget=1, by='feature', features=(target, others)
  )
  assert found.bank.names == ('z',)
  assert found.scores['y'] == pytest.approx(0.5**0.5)


def test_a_selection_may_be_narrowed_again() -> None:
  first = scale.select(BANK, GRADIENT, budget=2, by='block')
  second = scale.select(first.bank, GRADIENT, budget=1, by='block')
  assert [row is not None for row in second.bank.leaves['a']] == [
    False,
    False,
    True,
  ]


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'by': 'vectors'}, "no such way (did you mean 'vector'?)"),
    ({'budget': 0}, 'select(budget=0): expected 1 .. 3'),
    ({'budget': 4}, 'select(budget=4): expected 1 .. 3'),
    ({'by': 'feature'}, 'features= is missing'),
    (
      {'by': 'feature', 'features': (np.ones(2), np.ones((2, 2)))},
      'expected (d,) and (3, d)',
    ),
    ({'gradient': {'a': jnp.ones(2)}}, "the gradient has no leaf 'b'"),
  ],
)
def test_bad_arguments_are_refused(changes: Any, message: str) -> None:
  settings = {'gradient': GRADIENT, 'budget': 1} | changes
  gradient, budget = settings.pop('gradient'), settings.pop('budget')
  with pytest.raises(ValueError, match=re.escape(message)):
    scale.select(BANK, gradient, budget=budget, **settings)


def test_the_old_positional_budget_still_works() -> None:
  with pytest.warns(DeprecationWarning, match='positional budget'):
    found = scale.select(BANK, GRADIENT, 2)
  assert found.bank.names == scale.select(BANK, GRADIENT, budget=2).bank.names
