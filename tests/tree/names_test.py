"""Names, selection by name, and error messages."""

import collections
import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import tree

Pair = collections.namedtuple('Pair', ['left', 'right'])


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
  weight: Any
  bias: Any


def test_names_of_every_container() -> None:
  x = {
    'b': [1, (2, 3)],
    'a': {'c': 4},
    'layer': Layer(6, None),
    'pair': Pair(7, {'x': 8}),
  }
  assert tree.named(x) == {
    'a/c': 4,
    'b/0': 1,
    'b/1/0': 2,
    'b/1/1': 3,
    'layer/weight': 6,
    'pair/left': 7,
    'pair/right/x': 8,
  }
  assert tree.named(5) == {'': 5}
  assert tree.named({'n': None}) == {}
  assert tree.named({'n': None}, is_leaf=lambda v: v is None) == {'n': None}


def test_two_leaves_of_one_name_are_refused() -> None:
  with pytest.raises(ValueError, match="two leaves are both named 'a/b'"):
    tree.named({'a/b': 1, 'a': {'b': 2}})


def test_map_named_passes_names_and_further_trees() -> None:
  x, y = {'a': {'b': 1}, 'c': 2}, {'a': {'b': [10]}, 'c': 20}
  found = tree.map_named(lambda name, u, v: (name, u, v), x, y)
  assert found == {'a': {'b': ('a/b', 1, [10])}, 'c': ('c', 2, 20)}


def test_select_by_regex_and_by_predicate() -> None:
  x = {'head': {'w': jnp.ones((2, 3))}, 'body': {'w': jnp.ones(3), 'n': None}}
  by_name = {'head': {'w': True}, 'body': {'w': False, 'n': None}}
  assert tree.select(x, '^head/') == by_name
  assert tree.select(x, lambda name, shape: len(shape) == 2) == by_name
  assert tree.select(x, lambda name, shape: name == 'head/w') == by_name
  none = tree.select(x, lambda name, shape: False)
  assert not any(jax.tree.leaves(none))


def test_a_regex_that_selects_nothing_is_an_error() -> None:
  x = {name: 0 for name in 'abcdef'}
  message = "no leaf matches 'kernel': the names are ['a', 'b', 'c', 'd'] ..."
  with pytest.raises(ValueError, match=re.escape(message)):
    tree.select(x, 'kernel')


def test_by_regex_takes_the_first_rule() -> None:
  x = {'head': 0, 'body': {'w': 0, 'b': 0}}
  rules = [('head', 1.0), ('/b$', 2.0), ('.*', 3.0)]
  assert tree.by_regex(x, rules) == {'head': 1.0, 'body': {'w': 3.0, 'b': 2.0}}


def test_by_regex_covers_both_ways() -> None:
  with pytest.raises(ValueError, match="no rule covers leaf 'b': add one"):
    tree.by_regex({'a': 0, 'b': 0}, [('a', 1)])
  with pytest.raises(
    ValueError, match="rule 'a' covers no leaf that an earlier"
  ):
    tree.by_regex({'a': 0}, [('.*', 1), ('a', 2)])


def test_check_names() -> None:
  x = {'w': 0, 'v': [1, 2]}
  tree.check_names('a', x, 'b', {'w': 5, 'v': [6, 7]})
  cases = [
    ({'w': 0}, "a: no leaf 'v/0' as in b"),
    (x | {'u': 0}, "a: a leaf 'u' that is not in b: take it out"),
    ({'w': 0, 'v': (1, 2)}, "a: 'v' is a tuple, in b a list: convert it"),
  ]
  for found, message in cases:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
      tree.check_names('a', found, 'b', x)
    assert '\n' not in str(error.value)


def test_nearest() -> None:
  assert (
    tree.nearest('kernal', ['kernel', 'bias']) == " (did you mean 'kernel'?)"
  )
  assert tree.nearest('kernel', ['bias']) == ''
  assert tree.nearest('kernel', []) == ''


def test_broadcast_prefix() -> None:
  x = {'a': [0, 0], 'b': {'c': 0}}
  assert tree.broadcast_prefix(1, x) == {'a': [1, 1], 'b': {'c': 1}}
  assert tree.broadcast_prefix({'a': 1, 'b': 2}, x) == {
    'a': [1, 1],
    'b': {'c': 2},
  }
  assert tree.broadcast_prefix({'a': [1, 2], 'b': 3}, x)['a'] == [1, 2]


@pytest.mark.parametrize(
  ('prefix', 'message'),
  [
    ({'a': 1}, "no value stands for leaf 'b/c': add one to the prefix"),
    ({'a': 1, 'b': 2, 'd': 3}, "the value 'd' stands for no leaf"),
    ({'a': (1, 2, 3), 'b': 2}, "the value 'a/2' stands for no leaf"),
  ],
)
def test_a_mismatched_prefix_is_refused(prefix: Any, message: str) -> None:
  x = {'a': [0, 0], 'b': {'c': 0}}
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    tree.broadcast_prefix(prefix, x)
  assert str(error.value).startswith('broadcast_prefix: ')
  assert '\n' not in str(error.value)


def test_stack() -> None:
  x = [{'a': jnp.full(2, float(i)), 'n': None} for i in range(3)]
  stacked = tree.stack(x)
  assert stacked['a'].tolist() == [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]
  assert stacked['n'] is None


@pytest.mark.parametrize(
  ('trees', 'message'),
  [
    ([], 'stack: no trees given, at least one is needed'),
    (
      [{'a': np.ones(2)}, {'b': np.ones(2)}],
      "stack: tree 1: no leaf 'a' as in",
    ),
    (
      [{'a': np.ones(2)}] * 2 + [{'a': np.ones(3)}],
      "stack: leaf 'a' of tree 2 has shape (3,), of tree 0 (2,)",
    ),
  ],
)
def test_trees_that_do_not_stack_are_refused(trees: Any, message: str) -> None:
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    tree.stack(trees)
  assert '\n' not in str(error.value)


def test_sizes() -> None:
  x = {'w': np.zeros((2, 3)), 's': np.zeros(()), 'e': np.zeros((0, 4))}
  assert tree.sizes(x) == {'e': 0, 's': 1, 'w': 6}


def test_a_malformed_expression_is_named():
  with pytest.raises(ValueError, match=r"'block_\(' is no regular expression"):
    tree.select({'a': 0}, 'block_(')
  with pytest.raises(ValueError, match='is no regular expression'):
    tree.by_regex({'a': 0}, [('a', 1), ('[', 2)])
