"""Do niches and complementary mates evolve better networks than other searches?

  python -m experiments.evolve --config=configs/evolve.py:VARIANT

tiny: seconds, a test.

digits: fifteen minutes on shared cores. Three runs of 10,000 forward passes for
each method; MLP 64-256-10. Expect (test %, +- over runs):

                                 from scratch   from two experts
  M2N2                           83.3 +- 4.2    85.0 +- 0.5
  without attraction             76.3 +- 12.0   85.4 +- 0.6
  without a split                84.6 +- 6.7    81.7 +- 4.0
  without crossover              64.1 +- 5.9
  without niches and attraction  68.3 +- 3.2    77.6 +- 3.6
  CMA-ES, diagonal               79.5 +- 5.1
  best point of the line                        81.5 +- 3.9

M2N2 is above the archive without niches in every run of both starts, above the
line and above itself without a split from two experts, and above CMA-ES in the
mean only.

paper: ten runs of 50,000 forward passes, as in the paper.
"""

import ml_collections

from configs import _variants

METHODS = (
  'm2n2',
  'no_attraction',
  'no_split',
  'no_crossover',
  'genetic',
  'cmaes',
  'line',
)


def digits() -> ml_collections.ConfigDict:
  """The embedded digits."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'starts': ('scratch', 'experts'),
      'methods': METHODS,
      'runs': 3,
      'seed': 0,
      'evaluations': 10_000,  # forward passes over the training images
      'points': 25,  # of the curves, equally spaced
      'width': 256,
      'archive': 20,
      'deviation': 0.01,  # of initial weights, of mutants, and of CMA-ES
      # Of the two experts, one for the digits 0 .. 4 and one for 5 .. 9.
      'training': {'steps': 10, 'learning_rate': 3e-3},
    }
  )


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = digits()
  config.update({
    'methods': ('m2n2', 'genetic', 'cmaes', 'line'),
    'runs': 2, 'evaluations': 120, 'points': 3, 'width': 16, 'archive': 6,
  })  # fmt: skip
  return config


def paper() -> ml_collections.ConfigDict:
  """The sizes of the paper."""
  config = digits()
  config.update({'runs': 10, 'evaluations': 50_000, 'points': 50})
  return config


get_config = _variants.chooser(tiny, digits, paper)
