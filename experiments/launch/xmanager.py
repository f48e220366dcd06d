r"""Runs the sweep of an experiment as jobs of XManager on Vertex AI.

  python -m experiments.launch.xmanager --jobs=8 --accelerator=t4:1 \
    merge_vision --config=configs/merge_vision.py:digits --workdir=/gcs/B/sweep

Each job has --sweep_shard=i/N. --accelerator=NAME:COUNT is a requirement of
each job, such as t4:1. --workdir must be on a bucket, which Vertex AI mounts at
/gcs. --dry_run prints the jobs, and needs no XManager.
"""

from collections.abc import Sequence
import re
from typing import Any

from experiments.launch import _command


def main(argv: Sequence[str] | None = None) -> None:
  """Prints the jobs, or packages the checkout and adds them."""
  parser = _command.parser(__doc__)
  parser.add_argument('--jobs', type=int, default=1, help='of the sweep')
  parser.add_argument('--accelerator', help='of each job, such as t4:1')
  given = _command.parse(parser, argv)
  _command.require_workdir(given.flags, 'in a bucket: /gcs/BUCKET/FOLDER')
  need = given.accelerator or ''
  if need and not re.fullmatch(r'\w+:\d+', need):
    _command.stop(f'--accelerator={need}: expected name:count, such as t4:1')
  shards = [given.flags]
  if given.jobs > 1:
    shards = [
      _command.of_shard(given.flags, f'{i}/{given.jobs}')
      for i in range(given.jobs)
    ]
  if given.dry_run:
    for flags in shards:
      line = _command.text(_command.python(given.experiment, flags))
      print(f'{line}  # {need}' if need else line)
    return
  _launch(given.experiment, shards, need)


def _launch(name: str, shards: Sequence[Sequence[str]], need: str) -> None:
  """Packages the checkout as a container, and adds a job for each shard."""
  try:
    from absl import flags as absl_flags
    from xmanager import xm, xm_local
  except ImportError:
    _command.stop('xmanager is not installed: pip install xmanager')
  absl_flags.FLAGS(['xmanager'])  # XManager reads its own flags
  kind, _, count = need.partition(':')
  requirements: dict[str, Any] = {kind: int(count)} if need else {}
  with xm_local.create_experiment(experiment_title=name) as experiment:
    spec = xm.PythonContainer(
      path='.', entrypoint=xm.ModuleName(f'experiments.{name}')
    )
    (executable,) = experiment.package(
      [xm.Packageable(spec, executor_spec=xm_local.Vertex.Spec())]
    )
    for flags in shards:
      executor = xm_local.Vertex(
        requirements=xm.JobRequirements(**requirements)
      )
      experiment.add(xm.Job(executable, executor=executor, args=list(flags)))


if __name__ == '__main__':
  main()
