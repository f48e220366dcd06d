"""Reset of the running moments of the blocks after a stitch."""

import dataclasses
from typing import Any

import jax

from experiments._stitch_zoo import settings
from wsl import align, stitch, types


def reset(
  setting: settings.Setting,
  bottom: stitch.Segmented,
  top: stitch.Segmented,
  pair: tuple[int, int],
  adapter: stitch.Adapter,
) -> stitch.Segmented:
  """Returns the top with the running moments of its inputs after a stitch."""
  blocks = top.params['blocks']
  rest = range(pair[1], top.depth)
  params = [blocks[i]['params'] for i in rest]
  moments = [blocks[i]['batch_stats'] for i in rest]
  if moments:
    fns: Any = top.block
    modules = tuple(fns[i].module for i in rest)
    moments = align.reset_batch_stats(
      jax.tree_util.Partial(Update(pair[0], modules), bottom, adapter, params),
      moments,
      settings.fit_batches(setting),
    )
  new = [{**blocks[i], 'batch_stats': m} for i, m in zip(rest, moments)]
  changed = {**top.params, 'blocks': (*blocks[: pair[1]], *new)}
  return dataclasses.replace(top, params=changed)


@dataclasses.dataclass(frozen=True)
class Update:
  """Runs the blocks after a stitch in training mode, for their moments.

  Attributes:
    position: of the bottom, where the stitch begins.
    modules: the blocks after the stitch.
  """

  position: int
  modules: tuple[Any, ...]

  def __call__(
    self,
    bottom: stitch.Segmented,
    adapter: stitch.Adapter,
    params: list[types.Params],
    moments: list[types.Tree],
    x: types.Array,
  ) -> list[types.Tree]:
    """Returns the moments updated with the images."""
    value = stitch.features(bottom, x)[self.position]
    h = stitch.apply_adapter(adapter, value)
    found = []
    for module, own, old in zip(self.modules, params, moments):
      variables = {'params': own, 'batch_stats': old}
      h, new = module.apply(variables, h, train=True, mutable=['batch_stats'])
      found.append(new['batch_stats'])
    return found
