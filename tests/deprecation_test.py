"""Old names and arguments warn, at the line of the caller, and still work."""

import inspect

import jax
import pytest

from wsl import deprecation, scale, stitch, tree


def test_an_alias_warns_at_its_caller_and_does_the_same() -> None:
  old = deprecation.renamed('widest', tree.wide)
  x = jax.numpy.ones(2, jax.numpy.bfloat16)
  with pytest.warns(
    DeprecationWarning, match=r'tree\.widest .*tree\.wide'
  ) as w:
    y = old(x)
  assert w[0].filename == __file__
  assert y.dtype == tree.wide(x).dtype
  assert inspect.signature(old) == inspect.signature(tree.wide)


def test_old_names_lead_to_the_new_ones() -> None:
  found = {
    name: value.__wrapped__
    for room in (scale, stitch)
    for name, value in vars(room).items()
    if hasattr(value, '__deprecated__')
  }
  assert {'distilled', 'descendant', 'hybrid', 'meta'} <= set(found)
  for new in found.values():
    room = {'scale': scale, 'stitch': stitch}[new.__module__.split('.')[1]]
    assert getattr(room, new.__name__) is new


def test_a_seed_becomes_a_key_with_a_warning() -> None:
  def draw(*, key=None, seed=None):
    return deprecation.key_or_seed('room.draw', key, seed)

  key = jax.random.key(3)
  with pytest.warns(DeprecationWarning, match=r'room\.draw\(seed=\)') as w:
    assert draw(seed=3) == key
  assert w[0].filename == __file__
  assert draw(key=key) == key
  with pytest.raises(TypeError, match=r'room\.draw: missing key'):
    draw()
  with pytest.raises(TypeError, match=r'room\.draw: both key and seed'):
    draw(key=key, seed=3)


def test_a_positional_argument_that_became_keyword_only_still_works() -> None:
  @deprecation.positional('room.take', 'count')
  def take(items: str, *, count: int) -> str:
    return items[:count]

  assert take('abc', count=2) == 'ab'
  with pytest.warns(DeprecationWarning, match='positional count in room.take'):
    assert take('abc', 2) == 'ab'
  with pytest.raises(TypeError):
    take('abc', 2, count=2)
  with pytest.raises(TypeError):
    take('abc', 2, 3)
  with pytest.raises(TypeError):
    take('abc')


def test_a_renamed_argument_still_works() -> None:
  @deprecation.renamed_argument('room.take', 'number', 'count')
  def take(items: str, *, count: int) -> str:
    return items[:count]

  assert take('abc', count=2) == 'ab'
  with pytest.warns(DeprecationWarning, match=r'room.take.number=.*count='):
    assert take('abc', number=2) == 'ab'
  with pytest.raises(TypeError, match='number'):
    take('abc', number=2, count=2)
