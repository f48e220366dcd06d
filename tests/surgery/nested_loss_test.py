"""Granularities, random sizes, and the loss of nested training."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import align, surgery

UNITS, ROWS = 8, 6
LEAVES = (
  ('down', ((('h',),), (('y',),))),
  ('up', ((('x',),), (('h',),))),
)
SYMMETRY = align.Symmetry(
  (
    align.Factor('h', UNITS),
    align.Factor('x', 3, 'an input'),
    align.Factor('y', 2, 'an output'),
  ),
  LEAVES,
)
SIZES = surgery.granularities(SYMMETRY, factors=(1, 2, 4, 8))
KEY = jax.random.key(0)


def params() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  return {
    'down': rng.normal(size=(UNITS, 2)),
    'up': rng.normal(size=(3, UNITS)),
  }


def data() -> np.ndarray:
  return np.random.default_rng(1).normal(size=(ROWS, 3))


def loss_fn(p: Any, x: Any, key: Any) -> Any:
  return jnp.mean(jnp.square(jnp.tanh(x @ p['up']) @ p['down']))


def oracle(width: int) -> tuple[float, dict[str, np.ndarray]]:
  """Returns loss and gradient of a network of the first units."""
  p, x = params(), data()
  up, down = p['up'][:, :width], p['down'][:width]
  h = np.tanh(x @ up)
  y = h @ down
  slope = 2 * y / y.size
  of_up = x.T @ ((slope @ down.T) * (1 - h**2))
  gradient = {name: np.zeros_like(leaf) for name, leaf in p.items()}
  gradient['down'][:width], gradient['up'][:, :width] = h.T @ slope, of_up
  return np.square(y).mean(), gradient


def value_and_grad(**options: Any) -> tuple[Any, Any]:
  loss = surgery.nested_loss(loss_fn, SIZES, symmetry=SYMMETRY, **options)
  return jax.jit(jax.value_and_grad(loss))(params(), data(), KEY)


@pytest.mark.parametrize('weights', [None, [1.0, 0.5, 2.0, 0.0]])
def test_the_loss_is_the_sum_of_those_of_the_slices(weights: Any) -> None:
  """The first units have the gradient of every slice, the last of one."""
  loss, gradient = value_and_grad(weights=weights)
  each = [oracle(width) for width in (8, 4, 2, 1)]
  factors = weights or [1.0] * 4
  np.testing.assert_allclose(
    loss, sum(c * value for c, (value, _) in zip(factors, each)), rtol=1e-12
  )
  for name in gradient:
    wanted = sum(c * slopes[name] for c, (_, slopes) in zip(factors, each))
    np.testing.assert_allclose(gradient[name], wanted, rtol=1e-11)


def test_drawn_sizes_and_those_that_are_always_there() -> None:
  """The loss minus that of the fixed sizes is that of two random ones."""
  each = [oracle(width)[0] for width in (8, 4, 2, 1)]
  pairs = [each[i] + each[j] for i in range(4) for j in range(4)]
  loss = surgery.nested_loss(
    loss_fn, SIZES, symmetry=SYMMETRY, draws=2, always=(0, -1)
  )
  of_key = jax.jit(jax.vmap(lambda key: loss(params(), data(), key)))
  found = np.asarray(of_key(jax.random.split(KEY, 64)))
  rest = found - each[0] - each[3]
  nearest = np.abs(rest[:, None] - np.asarray(pairs)).min(1)
  assert nearest.max() < 1e-12
  assert len({*np.round(rest, 9)}) > 6


def test_draws_are_uniform_and_mixtures_independent() -> None:
  a, b = align.Factor('a:0', 8), align.Factor('b:0', 16)
  symmetry = align.Symmetry(
    (a, b), (('a', ((('a:0',),),)), ('b', ((('b:0',),),)))
  )
  sizes = surgery.granularities(symmetry, factors=(1, 2))
  keys = jax.random.split(KEY, 4000)
  for mixed in (False, True):
    draw = jax.jit(
      jax.vmap(
        lambda key, mixed=mixed: surgery.draw_size(sizes, key, mixed=mixed)
      )
    )
    found = draw(keys).widths
    small_a, small_b = (
      np.asarray(found['a:0']) == 4,
      np.asarray(found['b:0']) == 8,
    )
    assert abs(small_a.mean() - 0.5) < 0.03
    assert abs((small_a == small_b).mean() - (0.5 if mixed else 1)) < 0.03


def test_mixtures_in_the_order_of_layers() -> None:
  names = [f'block_{i}/mlp:0' for i in range(11)]
  factors = tuple(align.Factor(name, 8) for name in sorted(names))
  symmetry = align.Symmetry(
    (*factors, align.Factor('head:0', 4)),
    (
      *((f.name[:-2], (((f.name,),),)) for f in factors),
      ('head', ((('head:0',),),)),
    ),
  )
  choices = [1] * 10 + [8]
  found = surgery.mix_and_match(symmetry, choices, groups='mlp')
  wanted = dict.fromkeys(names, 8) | {'block_10/mlp:0': 1, 'head:0': 4}
  assert found.widths == wanted
  (whole,) = surgery.granularities(symmetry, factors=[1])
  assert whole == surgery.full_size(symmetry)
  gradual = [*surgery.gradual_choices(3, factors=(1, 2, 4))]
  assert len(gradual) == 10
  assert all(a <= b <= c for a, b, c in gradual)
