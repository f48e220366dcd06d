"""Separate experts as stacked leaves, and back."""

from typing import Any

import jax
import jax.numpy as jnp

from wsl import tree, types


def stack_experts(
  params: types.Params, *, experts: str = r'experts[./](\d+)[./]'
) -> types.Params:
  """Stacks the numbered experts of each layer, as separate leaves have them.

  Args:
    params: a model with a leaf for each expert, such as
      ``'layers.0.mlp.experts.3.w1.weight'``; in memory or on demand.
    experts: a regular expression whose group captures the number of an expert.

  Returns:
    The model in nested dicts, with leaves ``[E, ...]`` of the names without
    number: ``'layers.0.mlp.experts.w1.weight'``.

  Raises:
    ValueError: if no leaf matches, an expert misses a leaf, or shapes differ.

  Example:
    >>> params = {'experts.0.w': jnp.zeros(2), 'experts.1.w': jnp.ones(2)}
    >>> stack_experts(params)['experts.w'].tolist()
    [[0.0, 0.0], [1.0, 1.0]]
  """
  leaves = tree.named(params)
  found: dict[str, Any] = {}
  groups: dict[str, dict[int, Any]] = {}
  for name, leaf in leaves.items():
    number = tree.layer('stack_experts', experts, name)
    if number < 0:
      found[name] = leaf
      continue
    joined = _without_number(experts, name)
    groups.setdefault(joined, {})[number] = leaf
    found.setdefault(joined, None)  # in the place of the first expert
  if not groups:
    raise ValueError(
      f'stack_experts: no leaf matches {experts!r}: the names are '
      f'{list(leaves)[:3]}'
    )
  for joined, members in groups.items():
    numbers = sorted(members)
    if numbers != list(range(len(numbers))):
      missing = next(i for i in range(len(numbers)) if i != numbers[i])
      raise ValueError(
        f"stack_experts: '{joined}' has no expert {missing} of "
        f'{numbers[-1] + 1}'
      )
    shapes = {tuple(x.shape) for x in members.values()}
    if len(shapes) > 1:
      raise ValueError(
        f"stack_experts: experts of '{joined}' have shapes "
        f'{sorted(shapes)[:2]}: stack experts of one form'
      )
    found[joined] = tree.apply_kernel(_stack, *(members[i] for i in numbers))
  _check_equal_counts(groups)
  return tree.nest(found, separator='/')


def unstack_experts(
  params: types.Params, *, experts: str = r'experts[./]'
) -> types.Params:
  """Returns each expert as leaves of its own; inverts ``stack_experts``.

  Args:
    params: a model with leaves ``[E, ...]``, in memory or on demand.
    experts: a regular expression that ends where the number is inserted, with
      the separator before it.

  Returns:
    The model in nested dicts, with ``E`` leaves for each that matches.

  Raises:
    ValueError: if no leaf matches, one is no stack, or the expression does not
      end with a separator.

  Example:
    >>> params = {'experts.w': jnp.asarray([[0.0], [1.0]])}
    >>> {n: x.tolist() for n, x in unstack_experts(params).items()}
    {'experts.0.w': [0.0], 'experts.1.w': [1.0]}
  """
  pattern = tree.compiled(experts)
  found: dict[str, Any] = {}
  some = False
  for name, leaf in tree.named(params).items():
    match = pattern.search(name)
    if match is None:
      found[name] = leaf
      continue
    some = True
    before, after = name[: match.end()], name[match.end() :]
    if before[-1:] not in ('.', '/'):
      raise ValueError(
        f"unstack_experts: experts matches '{before}' of leaf '{name}': end "
        "the expression with '.' or '/'"
      )
    if not leaf.shape:
      raise ValueError(
        f"unstack_experts: leaf '{name}' is a number, no stack of experts: "
        'match other leaves'
      )
    for e in range(leaf.shape[0]):
      one = tree.apply_kernel(pick, leaf, e=e)
      found[f'{before}{e}{before[-1]}{after}'] = one
  if not some:
    raise ValueError(
      f'unstack_experts: no leaf matches {experts!r}: the names are '
      f'{list(found)[:3]}'
    )
  return tree.nest(found, separator='/')


def _without_number(experts: str, name: str) -> str:
  """Returns a name without the number of the expert and its separator."""
  match = tree.compiled(experts).search(name)
  assert match is not None
  return name[: match.start(1)] + name[match.end(1) + 1 :]


def _check_equal_counts(groups: dict[str, dict[int, Any]]) -> None:
  """Checks that the leaves of one layer have equally many experts."""
  counts: dict[str, tuple[int, str]] = {}
  for joined, members in groups.items():
    layer = joined.rpartition('experts')[0]
    count, first = counts.setdefault(layer, (len(members), joined))
    if count != len(members):
      raise ValueError(
        f"stack_experts: '{first}' has {count} experts, '{joined}' "
        f'{len(members)}: a layer has one number'
      )


def _stack(*leaves: types.Array) -> types.Array:
  return jnp.stack(leaves)


def pick(x: types.Array, *, e: types.Scalar) -> types.Array:
  """Returns one expert of a leaf ``[E, ...]``."""
  return jax.lax.dynamic_index_in_dim(x, e, 0, keepdims=False)
