"""Modules: a network cut into stretches of blocks, and put together again."""

from collections.abc import Sequence
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.stitch import _segmented

Segmented = _segmented.Segmented
_ENDS = ('embed', 'head')


def split(model: Segmented, *, count: int) -> tuple[Segmented, ...]:
  """Cuts a network into modules, stretches of its blocks.

  The first module owns the embedding too, the last one the head; in the others
  these are ``None``. Every parameter is in exactly one module.

  Args:
    model: a network of D blocks.
    count: the number K of modules, at most D. If it does not divide D, the
      first modules have one block more.

  Returns:
    K modules, each a ``Segmented`` without an embedding or a head of its own,
    but for the ends.

  Raises:
    ValueError: if there are not enough blocks.

  Example:
    >>> import jax.numpy as jnp
    >>> def scale(params, h):
    ...   return h * params
    >>> params = {'embed': jnp.ones(()), 'blocks': jnp.arange(1.0, 5.0),
    ...           'head': jnp.ones(())}
    >>> parts = split(Segmented(params, scale, scale, scale), count=2)
    >>> [part.params['blocks'].tolist() for part in parts]
    [[1.0, 2.0], [3.0, 4.0]]
    >>> parts[1].params['embed'] is None
    True

  Reference:
    Ni et al., "Deep Incubation: Training Large Models by Divide-and-
    Conquering", 2022, arXiv:2212.04129.
  """
  bounds = _bounds(model, count)
  return tuple(
    Segmented(
      {
        'embed': model.params['embed'] if i == 0 else None,
        'blocks': _blocks(model, slice(start, stop)),
        'head': model.params['head'] if i == count - 1 else None,
      },
      model.embed,
      model.block[start:stop]
      if isinstance(model.block, tuple)
      else model.block,
      model.head,
    )
    for i, (start, stop) in enumerate(itertools.pairwise(bounds))
  )


def meta(model: Segmented, *, count: int) -> Segmented:
  """Takes the first block of each module: a network of ``count`` blocks.

  It is the frame in which modules are trained one by one. Cut it from an
  untrained network and train it.

  Args:
    model: a network of D blocks, the target.
    count: the number K of modules, at most D.

  Returns:
    A network of K blocks, with the target's embedding and head.

  Raises:
    ValueError: if there are not enough blocks.

  Reference:
    Ni et al., 2022, arXiv:2212.04129.
  """
  starts = _bounds(model, count)[:-1]
  block = model.block
  if isinstance(block, tuple):
    blocks = tuple(model.params['blocks'][i] for i in starts)
    block = tuple(block[i] for i in starts)
  else:
    rows = np.asarray(starts)
    blocks = jax.tree.map(lambda x: x[rows], model.params['blocks'])
  return Segmented(
    {**model.params, 'blocks': blocks}, model.embed, block, model.head
  )


def assemble(modules: Sequence[Segmented]) -> Segmented:
  """Joins modules in their order into one network.

  Its parameters are the disjoint union of the modules': nothing is copied from
  anywhere else, and ``assemble(split(model))`` is the model.

  Args:
    modules: as from ``split`` or ``unstack_modules``.

  Returns:
    The network; fine-tune it as any other.

  Raises:
    ValueError: naming the module that has an embedding or a head where it has
      no place, or lacks one.

  Reference:
    Ni et al., 2022, arXiv:2212.04129.
  """
  if not modules:
    raise ValueError('assemble: no modules given, at least one is needed')
  last = len(modules) - 1
  for i, module in enumerate(modules):
    for name, owner in zip(_ENDS, (0, last)):
      owns = module.params[name] is not None
      if owns != (i == owner):
        has = 'has' if owns else 'lacks'
        raise ValueError(
          f"assemble: module {i} of {last + 1} {has} '{name}': it belongs to "
          f'module {owner} alone, as split has it'
        )
  return join(modules[0], modules, modules[-1])


def join(
  first: Segmented, parts: Sequence[Segmented], last: Segmented
) -> Segmented:
  """Joins one network's embedding, blocks of several, and another's head."""
  params = {'embed': first.params['embed'], 'head': last.params['head']}
  blocks = [part.params['blocks'] for part in parts if part.depth]
  fns = {part.block for part in parts}
  if len(fns) == 1 and parts[0].stacked:
    stacked = jax.tree.map(lambda *x: jnp.concatenate(x), *blocks)
    return Segmented(
      {**params, 'blocks': stacked}, first.embed, parts[0].block, last.head
    )
  each = [(part, i) for part in parts for i in range(part.depth)]
  singles = tuple(_segmented.block_params(part, i) for part, i in each)
  block = tuple(_segmented.block_fn(part, i) for part, i in each)
  return Segmented({**params, 'blocks': singles}, first.embed, block, last.head)


def part(model: Segmented, start: int, stop: int) -> Segmented:
  """Returns the blocks ``start, ..., stop - 1``, without the ends."""
  block = model.block
  if isinstance(block, tuple):
    block = block[start:stop]
  blocks = _blocks(model, slice(start, stop))
  params = {'embed': None, 'blocks': blocks, 'head': None}
  return Segmented(params, model.embed, block, model.head)


def stack_modules(modules: Sequence[Segmented]) -> Segmented:
  """Stacks modules of equal shapes for training them side by side.

  Under ``jax.vmap`` each must have the same leaves, so all get a copy of the
  embedding and of the head; ``hybrid`` and ``incubation`` use those of the
  owner alone, the others have zero gradients and ``unstack_modules`` drops
  them.

  Args:
    modules: K modules with equal numbers of blocks, stacked.

  Returns:
    One tree like a module, leaves ``[K, ...]``, to be mapped over.

  Raises:
    ValueError: if the modules are of different shapes.
  """
  ends = {
    'embed': modules[0].params['embed'],
    'head': modules[-1].params['head'],
  }
  sizes = [module.depth for module in modules]
  if len(set(sizes)) > 1 or not all(module.stacked for module in modules):
    raise ValueError(
      f'stack_modules: modules of {sizes} blocks: expected equal numbers of '
      'blocks that share one function; train the modules one by one instead'
    )
  whole = [
    Segmented({**m.params, **ends}, m.embed, m.block, m.head) for m in modules
  ]
  return tree.stack(whole)


def unstack_modules(stacked: Segmented) -> tuple[Segmented, ...]:
  """Takes stacked modules apart: what ``assemble`` joins.

  Args:
    stacked: from ``stack_modules``, leaves ``[K, ...]``.

  Returns:
    K modules, of which the first owns the embedding and the last the head.
  """
  count = jnp.shape(jax.tree.leaves(stacked)[0])[0]
  modules = []
  for i in range(count):
    own = jax.tree.map(lambda x, i=i: x[i], stacked)
    params = {
      'embed': own.params['embed'] if i == 0 else None,
      'blocks': own.params['blocks'],
      'head': own.params['head'] if i == count - 1 else None,
    }
    modules.append(Segmented(params, own.embed, own.block, own.head))
  return tuple(modules)


def _bounds(model: Segmented, count: int) -> list[int]:
  """Returns where the modules begin, and the depth."""
  if not 1 <= count <= model.depth:
    raise ValueError(
      f'count={count}: expected 1 .. {model.depth}, the number of blocks'
    )
  sizes = [len(rows) for rows in np.array_split(np.arange(model.depth), count)]
  return [0, *np.cumsum(sizes).tolist()]


def _blocks(model: Segmented, rows: slice) -> types.Params:
  blocks = model.params['blocks']
  if isinstance(model.block, tuple):
    return blocks[rows]
  return jax.tree.map(lambda x: x[rows], blocks)
