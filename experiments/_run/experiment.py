"""The opening that all experiments share."""

from collections.abc import Callable
import functools
from typing import Any, Protocol, TypeVar

import jax
import ml_collections

from experiments._run import records

Setting = TypeVar('Setting')
Body = Callable[[records.Run, Setting], dict[str, Any]]


class Run(Protocol):
  """The function ``run`` of an experiment."""

  def __call__(
    self,
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    mesh: jax.sharding.Mesh | None = None,
  ) -> dict[str, Any]:
    """Answers the question of the experiment, and writes figures and a record.

    Args:
      config: from ``get_config`` in the file of the same name in ``configs``.
      workdir: folder of the run; finished parts there are not computed again.
      mesh: with an axis ``candidates`` that maps runs, seeds or recipes, and
        others that shard parameters; None for one device.

    Returns:
      The record, as in ``record.json``.

    Raises:
      ValueError: naming the wrong field of the config, before any training;
        or if the experiment has no use of a mesh.
      FileNotFoundError: if data or weights are missing.
      FloatingPointError: if a training diverges.
    """


def body(
  name: str,
  load: Callable[[ml_collections.ConfigDict], Setting],
  describe: Callable[[Setting], str],
  *,
  on_mesh: bool = False,
) -> Callable[[Body[Setting]], Run]:
  """Turns the body of an experiment into its ``run(config, workdir)``.

  ``run`` returns the record of a finished run. Otherwise it loads the setting,
  prints its description, creates the folder, and calls the body.

  Args:
    name: of the experiment.
    load: reads the data and checks the config; raises the errors of ``Run``.
    describe: returns a line about the setting.
    on_mesh: whether the body uses the mesh of its folder, ``out.mesh``.

  Returns:
    A decorator of a function of (folder of the run, setting).
  """

  def decorate(function: Body[Setting]) -> Run:
    @functools.wraps(function)
    def run(
      config: ml_collections.ConfigDict,
      workdir: str,
      *,
      mesh: jax.sharding.Mesh | None = None,
    ) -> dict[str, Any]:
      check_mesh(name, mesh, on_mesh)
      out = records.Run(name, config, workdir, mesh=mesh)
      if out.record:
        return out.record
      setting = load(config)
      out.begin(describe(setting))
      return function(out, setting)

    return run

  return decorate


def check_mesh(
  name: str, mesh: jax.sharding.Mesh | None, on_mesh: bool = False
) -> None:
  """Checks that an experiment can use a mesh.

  Args:
    name: of the experiment.
    mesh: of the flags, or None.
    on_mesh: whether the experiment uses one.

  Raises:
    ValueError: if it does not, or the mesh has no axis ``candidates``.
  """
  if mesh is None:
    return
  if not on_mesh:
    raise ValueError(f'{name} runs on one device: leave --mesh out')
  if 'candidates' not in mesh.shape:
    raise ValueError(
      f"mesh: axes {list(mesh.axis_names)}, but none is 'candidates': write "
      '--mesh=candidates:1,... to shard parameters alone'
    )
