"""Operations of ``surgery`` that slice networks."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from tests.operations import aligning, inputs
from wsl import surgery


def parts(dtype: Any) -> list[inputs.Table]:
  return [_slices(dtype), _heads(dtype)]


def _slices(dtype: Any) -> inputs.Table:
  a, b = (inputs.params(dtype, i) for i in (1, 2))
  symmetry = aligning.symmetry()
  sizes = surgery.granularities(symmetry, factors=(1, 2))
  of = functools.partial
  loss = surgery.nested_loss(
    lambda p, x, key: jnp.mean(jnp.square(inputs.mlp(p, x))),
    sizes,
    symmetry=symmetry,
    draws=1,
    always=[0],
  )
  x = inputs.normal(dtype, inputs.N, 4, seed=3)
  return {
    'surgery.slice': (
      lambda p: surgery.slice(p, sizes[1], symmetry=symmetry), (a,)
    ),
    'surgery.mask_units': (
      of(surgery.mask_units, symmetry=symmetry), (a, sizes[1])
    ),
    'surgery.draw_size': (of(surgery.draw_size, sizes), (inputs.KEY,)),
    'surgery.nested_loss': (jax.grad(loss), (a, x, inputs.KEY)),
    'surgery.weight_importance': (
      of(surgery.weight_importance, symmetry=symmetry), (a,)
    ),
    'surgery.gradient_importance': (
      of(surgery.gradient_importance, symmetry=symmetry), (a, b)
    ),
    'surgery.fisher_importance': (
      of(surgery.fisher_importance, symmetry=symmetry), (a, b)
    ),
  }  # fmt: skip


def _heads(dtype: Any) -> inputs.Table:
  sizes, transforms = (2, 4), surgery.kernel_transforms((3, 1), dtype=dtype)
  h, kernel = inputs.normal(dtype, 5, 4), inputs.normal(dtype, 4, 3)
  labels = jnp.zeros(5, jnp.int32)
  logits = functools.partial(surgery.matryoshka_logits, sizes=sizes)
  stacked = inputs.normal(dtype, 2, 4, 3)
  return {
    'surgery.matryoshka_logits': (logits, (h, kernel)),
    'surgery.matryoshka_logits: a head for each size': (logits, (h, stacked)),
    'surgery.matryoshka_logits: its gradient': (
      inputs.slope(logits), (h, kernel)
    ),
    'surgery.matryoshka_loss': (
      surgery.matryoshka_loss, (inputs.normal(dtype, 2, 5, 3), labels)
    ),
    'surgery.elastic_kernel': (
      functools.partial(surgery.elastic_kernel, side=1),
      (inputs.normal(dtype, 3, 3, 2, 2), transforms),
    ),
    'surgery.elastic_kernel: padded': (
      functools.partial(surgery.elastic_kernel, side=1, padded=True),
      (inputs.normal(dtype, 3, 3, 2, 2), transforms),
    ),
  }  # fmt: skip
