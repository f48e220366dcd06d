"""The one convention for batches, and the errors that every room inherits."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import batches, stats

X = jnp.ones((4, 2))


def read(given: Any) -> list[Any]:
  return list(batches.stream(given, name='moments'))


def test_batches_are_yielded_unchanged_and_in_order() -> None:
  given = [X, (X, 'labels'), {'image': X, 'mask': X[:, 0]}, [X, X]]
  found = read(given)
  assert len(found) == len(given)
  assert all(a is b for a, b in zip(found, given))


def test_only_a_tuple_is_unpacked() -> None:
  assert batches.inputs_of((X, 'labels', 'weights')) is X
  assert batches.inputs_of((X,)) is X
  inputs = {'image': X, 'mask': X}
  assert batches.inputs_of((inputs, 'labels')) is inputs
  for whole in (X, inputs, [X, X]):
    assert batches.inputs_of(whole) is whole


def test_labels_are_not_checked() -> None:
  assert read([(X, None)]) == [(X, None)]
  assert len(read([(X, jnp.ones(()))])) == 1


def test_a_generator_is_read_lazily_and_once() -> None:
  read_so_far: list[int] = []

  def generate() -> Any:
    for i in range(3):
      read_so_far.append(i)
      yield X

  stream = batches.stream(generate(), name='moments')
  assert not read_so_far
  next(stream)
  assert read_so_far == [0]
  assert len(list(stream)) == 2


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (X, 'moments: batches is one array of shape (4, 2), expected an iterable'),
    (np.ones((4, 2)), 'pass [inputs] if this is the only one'),
    ([], 'moments: no batches given, at least one is needed'),
    ((x for x in ()), 'a generator can be read only once'),
    ([X, X[:0]], 'moments: batch 1 holds no examples (input shapes [(0, 2)])'),
    ([(X[:0], X)], 'batch 0 holds no examples'),
    ([jnp.ones(())], 'expected inputs [B, ...] with B >= 1'),
    ([3.0], 'batch 0 holds no examples (input shapes [()])'),
    ([{'image': X, 'mask': X[:0]}], 'batch 0 holds no examples'),
    ([{}], 'batch 0 holds no examples (input shapes [])'),
    ([(None, X)], 'batch 0 holds no examples'),
  ],
)
def test_bad_batches_are_refused(given: Any, message: str) -> None:
  with pytest.raises(ValueError, match=re.escape(message)):
    read(given)


def test_a_used_generator_is_refused() -> None:
  used = iter([X])
  assert len(read(used)) == 1
  with pytest.raises(ValueError, match='no batches given'):
    read(used)


def test_the_batches_before_a_bad_one_are_yielded() -> None:
  stream = batches.stream([X, X[:0]], name='moments')
  assert next(stream) is X
  with pytest.raises(ValueError, match='batch 1'):
    next(stream)


def test_every_statistic_names_itself() -> None:
  def apply_fn(params: Any, x: jax.Array) -> jax.Array:
    return x @ params['w']

  params = {'w': jnp.ones((2, 3))}
  for name in ('gram', 'moments', 'fisher'):
    with pytest.raises(ValueError, match=rf'^{name}: no batches given'):
      getattr(stats, name)(apply_fn, params, [])
  with pytest.raises(ValueError, match=r'^joint_gram: batches is one array'):
    stats.joint_gram(apply_fn, [params], X)
  features = lambda x: [x]
  with pytest.raises(ValueError, match=r'^cross_moments: batch 0 holds no'):
    stats.cross_moments(features, features, [X[:0]])
