"""Trees of the same leaves in other containers: accepted, or one short line."""

from collections import OrderedDict
import dataclasses
from typing import Any

from flax import nnx
from flax.core import freeze
import jax
import numpy as np
import pytest

from wsl import align, deltas, landscape, merge, tree


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
  bias: Any
  kernel: Any


def layer(value: float) -> dict[str, np.ndarray]:
  return {
    'bias': np.full(2, value, np.float32),
    'kernel': np.full((2, 2), value, np.float32),
  }


def model(value: float) -> dict[str, Any]:
  return {f'block_{i}': {'attn': layer(value + i)} for i in range(60)}


def _ordered(value: float) -> Any:
  return OrderedDict(reversed(list(model(value).items())))


def _align(base: Any, other: Any) -> Any:
  size = align.Factor('size', 2, pinned='a test')
  axes = lambda x: ((('size',),),) * x.ndim
  symmetry = align.Symmetry(
    (size,), tuple((name, axes(x)) for name, x in tree.named(base).items())
  )
  align.weight_matching(base, other, symmetry=symmetry, key=jax.random.key(0))


DOORS = {
  'stack': lambda a, b: deltas.apply(a, merge.mean(deltas.stack(a, [b]))),
  'apply': lambda a, b: deltas.apply(a, b),
  'interpolate': lambda a, b: landscape.interpolate(a, b, 0.5),
  'slerp': lambda a, b: merge.slerp(a, b, t=0.5),
  'tree.stack': lambda a, b: tree.stack([a, b]),
}


@pytest.mark.parametrize('door', DOORS)
@pytest.mark.parametrize('kind', [freeze, OrderedDict, _ordered])
def test_mappings_of_the_same_keys_are_interchangeable(
  door: str, kind: Any
) -> None:
  other = kind(2.0) if kind is _ordered else kind(model(2.0))
  for a, b in ((model(0.0), other), (other, model(0.0))):
    plain = [tree.like(model(0.0), x) for x in (a, b)]
    found, wanted = DOORS[door](a, b), DOORS[door](*plain)
    assert jax.tree.structure(found) == jax.tree.structure(a)
    jax.tree.map(
      np.testing.assert_array_equal, tree.like(model(0.0), found), wanted
    )


def _tuples(value: float) -> Any:
  return {'layers': tuple(layer(value) for _ in range(3))}


OTHERS: dict[str, tuple[Any, Any, str]] = {
  'a list and a tuple': (
    _tuples(0.0),
    {'layers': list(_tuples(1.0)['layers'])},
    "'layers' is a list, in",
  ),
  'a dict and a dataclass': (
    {'a': layer(0.0)},
    {'a': Layer(**layer(1.0))},
    "'a' is a Layer, in",
  ),
  'a list and a dict': (
    _tuples(0.0),
    {'layers': {str(i): layer(1.0) for i in range(3)}},
    "'layers' is a dict, in",
  ),
  'numbers and strings as keys': (
    {'a': {0: layer(0.0)}},
    {'a': {'0': layer(1.0)}},
    "'a' lacks the key 0",
  ),
  'an NNX state': (
    layer(0.0),
    nnx.State({k: nnx.Param(v) for k, v in layer(1.0).items()}),
    "leaf 'bias/value' is 'bias' in",
  ),
  'flat and nested': (
    model(0.0),
    {k.replace('/', '.'): v for k, v in tree.named(model(1.0)).items()},
    "leaf 'block_0.attn.bias' is 'block_0/attn/bias' in",
  ),
}


@pytest.mark.parametrize('door', [*DOORS, 'align'])
@pytest.mark.parametrize('case', OTHERS)
def test_other_containers_are_refused_in_one_line(door: str, case: str) -> None:
  base, other, message = OTHERS[case]
  if door == 'align' and case not in ('an NNX state', 'flat and nested'):
    return  # It reads leaves by name.
  call = _align if door == 'align' else DOORS[door]
  with pytest.raises(ValueError) as error:
    call(base, other)
  text = str(error.value)
  assert len(text) <= 200, text
  assert '\n' not in text
  assert 'tree.like' in text
  if door != 'align':
    assert message in text
  call(base, tree.like(base, other))


def test_long_names_keep_the_line_short() -> None:
  deep = '/'.join(f'transformer_block_number_{i}' for i in range(20))
  for other in ({}, {deep: 0, deep + 'er': 0}, {deep[:-1]: 0}, {deep: [0]}):
    with pytest.raises(ValueError) as error:
      tree.conform('stack: model 1', other, 'base', {deep: 0})
    assert len(str(error.value)) <= 200


def test_a_prefix_may_have_other_containers() -> None:
  tree_ = freeze({'a': {'b': 0, 'c': (0, 0)}, 'd': 0})
  found = tree.broadcast_prefix({'a': {'b': 1, 'c': 2}, 'd': 3}, tree_)
  assert found == freeze({'a': {'b': 1, 'c': (2, 2)}, 'd': 3})
  lists = {'a': [0, 0], 'b': {'c': 0}}
  found = tree.broadcast_prefix({'a': (1, 2), 'b': 3}, lists)
  assert found == {'a': [1, 2], 'b': {'c': 3}}
  with pytest.raises(ValueError, match="no value stands for leaf 'd'"):
    tree.broadcast_prefix({'a': 1}, tree_)


def test_like() -> None:
  base = {'a': Layer(0, [1, (2,)]), 'b': None}
  other = {'a': {'kernel': {'1': {'0': 'z'}, '0': 'y'}, 'bias': 'x'}}
  found = tree.like(base, other)
  assert found == {'a': Layer('x', ['y', ('z',)]), 'b': None}
  flat = {'a.kernel.1.0': 'z', 'a.bias': 'x', 'a.kernel.0': 'y'}
  assert tree.like(base, flat) == found
  # A dot in a name that both trees have is no separator.
  assert tree.like({'a.b': 0, 'c': 0}, {'c': 1, 'a.b': 2}) == {'a.b': 2, 'c': 1}
  with pytest.raises(ValueError, match="like: other: no leaf 'b'"):
    tree.like({'a': 0, 'b': 0}, {'a': 0})
  with pytest.raises(ValueError, match="a leaf 'c' that is not in base"):
    tree.like({'a': 0}, {'a': 0, 'c': 0})


def test_static_fields_that_differ_are_named() -> None:
  make = lambda axes: {'w': jax.tree_util.Partial(print, axes)}
  one = {'w': jax.tree_util.Partial(print, 0)}
  two = {'w': jax.tree_util.Partial(max, 0)}
  tree.conform('b', make(1), 'a', make(2))
  with pytest.raises(ValueError, match="b: 'w' is a Partial with other static"):
    tree.conform('b', two, 'a', one)
