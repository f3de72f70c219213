"""Training of equinox modules with optax: a pure step, and a loop that resumes exactly."""

from ._batches import Epochs as Epochs, HostEpochs as HostEpochs, Minibatches as Minibatches
from ._conjugate_matching import ConjugateMatching as ConjugateMatching
from ._ensemble import fit_ensemble as fit_ensemble
from ._fit import Fit as Fit, fit as fit
from ._fixed_point import FixedPointMatching as FixedPointMatching
from ._operators import (
    Normalised as Normalised,
    OperatorMatching as OperatorMatching,
    relative_h1 as relative_h1,
    relative_l2 as relative_l2,
    spectral_h1 as spectral_h1,
)
from ._precision import MixedPrecision as MixedPrecision
from ._proximal_matching import (
    GammaSchedule as GammaSchedule,
    NoisyBatches as NoisyBatches,
    ProximalMatching as ProximalMatching,
)
from ._shard import replicate as replicate, shard_batch as shard_batch
from ._step import TrainState as TrainState, TrainStep as TrainStep
