"""Flat dicts of dotted names, and nested dicts."""

from typing import Any

import pytest

from wsl import tree


@pytest.mark.parametrize('separator', ['.', '/', '::'])
def test_nest_inverts_flatten(separator: str) -> None:
  nested: dict[str, Any] = {'a': {'b': 1, 'c': {'d': 2}}, 'e': 3}
  flat = tree.flatten(nested, separator=separator)
  assert flat == {
    separator.join('ab'): 1,
    separator.join('acd'): 2,
    'e': 3,
  }
  assert tree.nest(flat, separator=separator) == nested


def test_dotted_keys_are_nested_too() -> None:
  assert tree.flatten({'a.b': {'c': 1}}) == {'a.b.c': 1}
  assert tree.nest({'a.b.c': 1, 'a.b.d': 2}) == {'a': {'b': {'c': 1, 'd': 2}}}
  assert tree.nest({}) == {}


def test_collisions_are_named() -> None:
  with pytest.raises(ValueError, match=r"would be named 'a\.b'"):
    tree.flatten({'a.b': 1, 'a': {'b': 2}})
  for flat in ({'a': 1, 'a.b': 2}, {'a.b': 2, 'a': 1}, {'a.b': {}, 'a.b.c': 1}):
    with pytest.raises(ValueError, match=r"nest: 'a(\.b)?' is a leaf"):
      tree.nest(flat)


def test_common_leaves() -> None:
  found, extra = tree.common({'a': {'b': 0}, 'c': 0}, {'a.b': 1, 'd': 2})
  assert found == {'a/b': 1}
  assert extra == ['d']
