"""Partitions any network's parameters into embedding, blocks and head."""

from collections.abc import Sequence
import re
from typing import Any

from wsl import tree, types
from wsl.stitch import _segmented

PartRule = tuple[_segmented.PartFn, str]


def cut(
  params: types.Params,
  *,
  embed: PartRule,
  blocks: PartRule | Sequence[PartRule],
  head: PartRule,
) -> _segmented.Segmented:
  r"""Makes a segmented network from parameters and the functions of its parts.

  Each part is a pair (function, regular expression). The expression is searched
  in the names ``'a/b/c'`` of the leaves; every leaf must match exactly one
  part. The function of a part receives nested dicts of its own leaves, under
  their names in ``params``.

  A single rule for all blocks has one group, the number of the block. Its
  function receives names from which the matched text is removed: with
  ``r'block_(\d+)/'``, block 0 gets ``block_0/dense/kernel`` as
  ``{'dense': {'kernel': ...}}``. Blocks with equal names, shapes and dtypes are
  stacked; they must then keep the shape of the features.

  Args:
    params: any pytree of arrays.
    embed: the embedding; ``'$^'`` matches no leaf.
    blocks: one rule with a group, or one rule for each block.
    head: the head; ``'$^'`` matches no leaf.

  Returns:
    The network. It shares its leaves with ``params``, except stacked blocks.

  Raises:
    ValueError: naming a leaf that matches no part or two parts, a block's rule
      that matches no leaf, or a missing block number.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import stitch
    >>> params = {f'layer_{i}': {'w': jnp.eye(2)} for i in range(3)}
    >>> params |= {'in': jnp.ones((4, 2)), 'out': jnp.ones((2, 5))}
    >>> model = cut(
    ...   params,
    ...   embed=(lambda p, x: x @ p['in'], '^in$'),
    ...   blocks=(lambda p, h: h @ p['w'], r'layer_(\d+)/'),
    ...   head=(lambda p, h: h @ p['out'], '^out$'))
    >>> model.depth, model.stacked, stitch.apply(model, jnp.ones((1, 4))).shape
    (3, True, (1, 5))
  """
  many = not callable(blocks[0])
  rules: list[Any] = [embed, *(blocks if many else [blocks]), head]
  labels = ['embed', 'blocks', 'head']
  if many:
    labels[1:2] = [f'blocks[{i}]' for i in range(len(rules) - 2)]
  patterns = [tree.compiled(pattern) for _, pattern in rules]
  if not many and patterns[1].groups != 1:
    raise ValueError(
      f"cut: blocks: '{rules[1][1]}' has {patterns[1].groups} groups: expected "
      r'one, the number of the block, as in (\d+), or a rule for each block'
    )
  taken = _assign(tree.named(params), labels, patterns)
  first, *middle, last = taken
  if many:
    trees = [_nested(leaves) for leaves in middle]
    fns = tuple(fn for fn, _ in rules[1:-1])
    together: Any = tuple(trees)
  else:
    trees = _numbered(middle[0], patterns[1])
    fns, together = _stack(rules[1][0], trees)
  cut_params = {
    'embed': _nested(first),
    'blocks': together,
    'head': _nested(last),
  }
  return _segmented.Segmented(cut_params, embed[0], fns, head[0])


def _assign(
  named: dict[str, Any], labels: list[str], patterns: list[re.Pattern[str]]
) -> list[dict[str, Any]]:
  """Assigns each leaf to the part whose pattern matches its name."""
  taken: list[dict[str, Any]] = [{} for _ in labels]
  for name, leaf in named.items():
    found = [i for i, pattern in enumerate(patterns) if pattern.search(name)]
    if len(found) != 1:
      by = [labels[i] for i in found]
      what = f'matches {by}' if found else f'matches none of {labels}'
      raise ValueError(
        f"cut: leaf '{name}' {what}: every leaf belongs to exactly one part"
      )
    taken[found[0]][name] = leaf
  for label, pattern, leaves in zip(labels, patterns, taken, strict=True):
    if not leaves and label.startswith('blocks'):
      hint = tree.nearest(pattern.pattern, list(named))
      raise ValueError(
        f"cut: {label}: no leaf matches '{pattern.pattern}'{hint}"
      )
  return taken


def _numbered(
  leaves: dict[str, Any], pattern: re.Pattern[str]
) -> list[types.Params]:
  """Groups leaves by the block number in their names; one tree per block."""
  by_number: dict[int, dict[str, Any]] = {}
  for name, leaf in leaves.items():
    match = pattern.search(name)
    assert match is not None
    if not match[1].isdecimal():
      raise ValueError(
        f"cut: leaf '{name}': '{match[1]}' is not a block number: use the "
        r'group (\d+)'
      )
    rest = name[: match.start()] + name[match.end() :]
    by_number.setdefault(int(match[1]), {})[rest] = leaf
  for i in range(max(by_number)):
    if i not in by_number:
      raise ValueError(
        f'cut: no leaf of block {i}, of blocks 0..{max(by_number)}: number '
        'them from 0 without gaps'
      )
  return [_nested(by_number[i]) for i in range(len(by_number))]


def _stack(fn: _segmented.PartFn, trees: list[types.Params]) -> Any:
  """Stacks trees if names, shapes and dtypes agree; else returns tuples."""
  forms = [
    {name: (x.shape, x.dtype) for name, x in tree.named(t).items()}
    for t in trees
  ]
  if all(form == forms[0] for form in forms):
    return fn, tree.stack(trees)
  return (fn,) * len(trees), tuple(trees)


def _nested(leaves: dict[str, Any]) -> types.Params:
  """Returns nested dicts from names ``'a/b/c'``."""
  result: dict[str, Any] = {}
  for name, leaf in leaves.items():
    *parents, last = name.split('/')
    place = result
    for parent in parents:
      place = place.setdefault(parent, {})
    place[last] = leaf
  return result
