"""Can a decoder read the latents of an encoder that it was not trained with?

  python -m experiments.relative --config=configs/relative.py:digits

Networks of several seeds and widths learn one task, as classifiers and as
autoencoders. Their encoders are frozen, and every encoder is joined to the
decoder of every other network without training: directly; through relative
representations, with decoders trained on the similarities of their own encoder
to anchors; and through maps of the latents fitted to the same anchors. Anchors
are images that no network is trained on. How many are needed?

Two controls: decoders of relative representations must fail when the anchors
are given in another order, and raw latents must be useless to the decoder of
another network.
"""

import functools
from typing import Any

from experiments import _main
from experiments._relative import report, settings, training, zero_shot
from experiments._run import experiment, records

NAME = 'relative'


@experiment.body(NAME, settings.load, settings.describe)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Trains networks, and joins encoders to the decoders of others."""
  config = setting.config

  results = {}
  for objective in config.objectives:
    # Train encoders with their decoders, then decoders over anchors.
    networks = out.arrays(
      objective,
      functools.partial(training.networks, setting, objective),
    )
    members = settings.members(setting, networks)
    decoders = out.arrays(
      f'{objective}.relative',
      functools.partial(
        training.relative_decoders, setting, objective, members
      ),
    )

    # Join every encoder to the decoder of every other.
    results[objective] = out.values(
      f'{objective}.pairs',
      functools.partial(
        zero_shot.measure, setting, objective, members, decoders
      ),
    )
    if objective == 'images':
      shown = zero_shot.reconstructions(setting, members, decoders)
      report.draw_images(out.path / 'images.png', shown)

  # Write a figure, tables and the record.
  summary = report.summarise(config, results)
  out.log(*summary['rows'])
  report.draw_anchors(out.path / 'anchors.png', summary)
  report.show(out.title, summary)
  return out.finish({**summary, 'results': results})


if __name__ == '__main__':
  _main.main(NAME, run)
