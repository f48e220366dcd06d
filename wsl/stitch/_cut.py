"""Cuts any network's parameters into embedding, blocks and head."""

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
  r"""Makes a segmented network of parameters and the functions of its parts.

  Each part is (function, regular expression), the expression searched in the
  names ``'a/b/c'`` of the leaves; every leaf must fall to exactly one part. A
  part's function is given the nested dicts of its own leaves, under the names
  that they have in ``params``.

  One rule for all blocks has one group, the number of the block, and its
  function is given names without the text that matched: by
  ``r'block_(\d+)/'`` block 0 has ``block_0/dense/kernel`` as
  ``{'dense': {'kernel': ...}}``.
  Such blocks are stacked where their names, shapes and dtypes agree; they must
  then keep the shape of the features.

  Args:
    params: any pytree of arrays.
    embed: the embedding; ``'$^'`` takes no leaf.
    blocks: one rule with a group, or one rule for each block.
    head: the head; ``'$^'`` takes no leaf.

  Returns:
    The network, which shares its leaves with ``params`` but where blocks are
    stacked.

  Raises:
    ValueError: naming a leaf that no part or that two parts take, a block's
      rule that takes none, or a missing number of a block.

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
  taken = _share_out(tree.named(params), labels, patterns)
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


def _share_out(
  named: dict[str, Any], labels: list[str], patterns: list[re.Pattern[str]]
) -> list[dict[str, Any]]:
  """Gives each leaf to the one part whose pattern matches its name."""
  taken: list[dict[str, Any]] = [{} for _ in labels]
  for name, leaf in named.items():
    found = [i for i, pattern in enumerate(patterns) if pattern.search(name)]
    if len(found) != 1:
      by = [labels[i] for i in found]
      what = f'is taken by {by}' if found else f'falls to none of {labels}'
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
  """Returns the tree of each block, by the number in its leaves' names."""
  by_number: dict[int, dict[str, Any]] = {}
  for name, leaf in leaves.items():
    match = pattern.search(name)
    assert match is not None
    if not match[1].isdecimal():
      raise ValueError(
        f"cut: leaf '{name}': '{match[1]}' is no number of a block: let the "
        r'group be (\d+)'
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
  """Stacks trees that agree; otherwise returns tuples."""
  forms = [
    {name: (x.shape, x.dtype) for name, x in tree.named(t).items()}
    for t in trees
  ]
  if all(form == forms[0] for form in forms):
    return fn, tree.stack(trees)
  return (fn,) * len(trees), tuple(trees)


def _nested(leaves: dict[str, Any]) -> types.Params:
  """Makes nested dicts of names ``'a/b/c'``."""
  result: dict[str, Any] = {}
  for name, leaf in leaves.items():
    *parents, last = name.split('/')
    place = result
    for parent in parents:
      place = place.setdefault(parent, {})
    place[last] = leaf
  return result
