"""Bad sizes, models and tables: one line that names them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.surgery import nested_networks as networks
from wsl import surgery

HIDDEN = networks.OF_HIDDEN


def size_of(**arguments: Any) -> surgery.Size:
  return surgery.slice_size(networks.symmetry(), **arguments)


def cut(params: Any, size: Any) -> Any:
  return surgery.slice(params, size, symmetry=networks.symmetry())


def loss_of(sizes: Any, **arguments: Any) -> Any:
  return surgery.nested_loss(
    lambda p, batch, key: 0.0, sizes, symmetry=networks.symmetry(), **arguments
  )


def order_of(tables: Any) -> Any:
  return surgery.importance_order(tables, symmetry=networks.symmetry())


def kernel_of(**arguments: Any) -> Any:
  transforms = arguments.pop('transforms', surgery.kernel_transforms((5, 3)))
  kernel = arguments.pop('kernel', np.ones((5, 5, 1, 1)))
  return surgery.elastic_kernel(kernel, transforms, **arguments)


def logits_of(**arguments: Any) -> Any:
  kernel = arguments.pop('kernel', jnp.ones((4, 3)))
  return surgery.matryoshka_logits(jnp.ones((2, 4)), kernel, **arguments)


TRACED = surgery.Size({HIDDEN: 1}, {})

CASES: list[tuple[Callable[[], Any], str]] = [
  (lambda: size_of(widths=2), 'widths=2 is one count for all groups'),
  (lambda: size_of(widths={HIDDEN: 0}), 'is 0 units, expected 1 .. 8'),
  (lambda: size_of(widths={HIDDEN: 9}), 'is 9 units, expected 1 .. 8'),
  (lambda: size_of(widths={HIDDEN: 0.0}), 'expected a fraction in'),
  (lambda: size_of(widths={HIDDEN: True}), 'expected a fraction in'),
  (lambda: size_of(widths={HIDDEN: 1.5}), 'expected a fraction in'),
  (lambda: size_of(widths={'bias': 1}), "no group 'bias'.*did you mean"),
  (lambda: size_of(widths={'embed:0': 1}), 'pinned .an axis of the input'),
  (lambda: size_of(depths={r'block_(\d+)/': 1}), 'which matches no leaf'),
  (lambda: size_of(depths={r'em(\d+)': -1}), 'expected a number of blocks'),
  (lambda: size_of(depths={'embed': 1}), 'expected one group'),
  (lambda: cut(networks.params(), {HIDDEN: 2}), 'the size is a dict'),
  (
    lambda: cut(networks.params(), surgery.Size({HIDDEN: 99}, {})),
    "99 units of group 'bias:0', expected 1 .. 8",
  ),
  (lambda: cut({'embed': np.ones(2)}, TRACED), 'slice: params'),
  (
    lambda: cut(networks.params() | {'up': np.ones((6, 7))}, TRACED),
    "leaf 'up' has shape",
  ),
  (
    lambda: jax.jit(lambda n: cut(networks.params(), TRACED._replace(
      widths={HIDDEN: n})))(1),
    'the size is traced',
  ),
  (lambda: loss_of([]), 'no sizes given'),
  (
    lambda: loss_of([size_of(), surgery.Size({}, {})]),
    'size 1 names other groups',
  ),
  (lambda: loss_of([size_of()], weights=[1, 2]), 'expected 1 finite numbers'),
  (lambda: loss_of([size_of()], draws=0), 'draws=0, expected 1 or more'),
  (lambda: loss_of([size_of()], mixed=True), 'belong to draws'),
  (
    lambda: loss_of([size_of()], draws=1, always=[1]),
    'always names size 1 of 1',
  ),
  (lambda: order_of({'bias': np.ones(8)}), "no group 'bias'"),
  (lambda: order_of({HIDDEN: np.ones(7)}), r'shape \(7,\), expected \(8,\)'),
  (lambda: order_of({HIDDEN: np.full(8, np.nan)}), 'is not finite'),
  (
    lambda: surgery.weight_importance(
      networks.params(), symmetry=networks.symmetry(), power=3
    ),
    'power=3, expected 1 or 2',
  ),
  (
    lambda: surgery.activation_importance(
      networks.params(), {}, symmetry=networks.symmetry()
    ),
    'no leaf has a Gram matrix',
  ),
  (
    lambda: surgery.granularities(networks.symmetry(), groups='mlp'),
    "groups='mlp' matches no group",
  ),
  (
    lambda: surgery.mix_and_match(networks.symmetry(), [1, 2]),
    '2 choices for 3 groups',
  ),
  (
    lambda: surgery.granularities(networks.symmetry(), factors=[0.5]),
    'factor 0.5, expected 1 or more',
  ),
  (lambda: surgery.kernel_transforms((7, 4)), 'side 4, expected an odd one'),
  (lambda: surgery.kernel_transforms((3, 3)), 'is twice'),
  (lambda: kernel_of(side=7), r'side=7, expected one of \[5, 3\]'),
  (lambda: kernel_of(kernel=np.ones((5, 3)), side=3), 'expected equal odd'),
  (
    lambda: kernel_of(transforms={'3': np.ones((3, 3))}, side=3),
    "the transform '3' has shape",
  ),
  (lambda: logits_of(sizes=(2, 1)), r'sizes=\(2, 1\), expected increasing'),
  (lambda: logits_of(sizes=(2, 5)), 'size 5 of 4 features'),
  (
    lambda: logits_of(sizes=(2, 4), kernel=jnp.ones((3, 4, 3))),
    'expected .4, C. or .2, 4, C.',
  ),
  (
    lambda: logits_of(sizes=(2, 4), bias=jnp.ones(4)),
    'expected .3. or .2, 3.',
  ),
  (
    lambda: surgery.matryoshka_loss(jnp.ones((2, 5, 3)), jnp.ones(4, int)),
    'expected .M, ..., C. and',
  ),
]  # fmt: skip


@pytest.mark.parametrize(('call', 'message'), CASES)
def test_one_line_names_the_mistake(call: Any, message: str) -> None:
  with pytest.raises(ValueError, match=message) as error:
    call()
  assert '\n' not in str(error.value)
  assert len(str(error.value)) <= 200
