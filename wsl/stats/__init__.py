"""Statistics of a model on data, streamed over batches.

They are what the data-informed merges consume: ``merge.fisher`` weighs
parameters by the Fisher diagonal, ``merge.regmean`` solves with the Gram
matrices. Any ``apply_fn(params, inputs)`` will do, from whatever framework.
"""

from wsl.stats._fisher import fisher as fisher
from wsl.stats._gram import gram as gram
from wsl.stats._gram import linear_maps as linear_maps
