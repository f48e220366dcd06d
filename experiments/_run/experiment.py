"""The opening that all experiments share."""

from collections.abc import Callable
import functools
from typing import Any, Protocol, TypeVar

import ml_collections

from experiments._run import records

Setting = TypeVar('Setting')
Body = Callable[[records.Run, Setting], dict[str, Any]]


class Run(Protocol):
  """The function ``run`` of an experiment."""

  def __call__(
    self, config: ml_collections.ConfigDict, workdir: str
  ) -> dict[str, Any]:
    """Answers the question of the experiment, and writes figures and a record.

    Args:
      config: from ``get_config`` in the file of the same name in ``configs``.
      workdir: folder of the run; finished parts there are not computed again.

    Returns:
      The record, as in ``record.json``.

    Raises:
      ValueError: naming the wrong field of the config, before any training.
      FileNotFoundError: if data or weights are missing.
      FloatingPointError: if a training diverges.
    """


def body(
  name: str,
  load: Callable[[ml_collections.ConfigDict], Setting],
  describe: Callable[[Setting], str],
) -> Callable[[Body[Setting]], Run]:
  """Turns the body of an experiment into its ``run(config, workdir)``.

  ``run`` returns the record of a finished run. Otherwise it loads the setting,
  prints its description, creates the folder, and calls the body.

  Args:
    name: of the experiment.
    load: reads the data and checks the config; raises the errors of ``Run``.
    describe: returns a line about the setting.

  Returns:
    A decorator of a function of (folder of the run, setting).
  """

  def decorate(function: Body[Setting]) -> Run:
    @functools.wraps(function)
    def run(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
      out = records.Run(name, config, workdir)
      if out.record:
        return out.record
      setting = load(config)
      out.begin(describe(setting))
      return function(out, setting)

    return run

  return decorate
