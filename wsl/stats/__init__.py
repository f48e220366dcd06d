"""Statistics of a model on data, streamed over batches.

The data-informed methods consume them: ``merge.fisher`` weighs parameters by
the Fisher diagonal, ``merge.regmean`` solves with the Gram matrices,
``align.repair`` resets the moments of every unit, ``align.pleas`` solves with
the joint Gram matrices of two models, and ``stitch`` fits adapters to the cross
moments of two networks' features. ``apply_fn(params, inputs)`` may come from
any framework.
"""

from wsl.stats._about_origin import about_origin as about_origin
from wsl.stats._cca import cca as cca
from wsl.stats._cka import cka as cka
from wsl.stats._cost import Cost as Cost
from wsl.stats._cost import cost as cost
from wsl.stats._cross_moments import cross_moments as cross_moments
from wsl.stats._fisher import fisher as fisher
from wsl.stats._gram import gram as gram
from wsl.stats._gram import linear_maps as linear_maps
from wsl.stats._joint_gram import joint_gram as joint_gram
from wsl.stats._least_squares import least_squares as least_squares
from wsl.stats._least_squares import LeastSquares as LeastSquares
from wsl.stats._least_squares import residual as residual
from wsl.stats._leaves.differences import leaf_differences as leaf_differences
from wsl.stats._leaves.differences import LeafDifference as LeafDifference
from wsl.stats._leaves.statistics import leaf_statistics as leaf_statistics
from wsl.stats._leaves.statistics import LeafStatistics as LeafStatistics
from wsl.stats._leaves.ulps import ulps as ulps
from wsl.stats._matrix_views import matrix_views as matrix_views
from wsl.stats._moments import moments as moments
from wsl.stats._rbf_cka import rbf_cka as rbf_cka
