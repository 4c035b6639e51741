"""Name the passes, one per file, in the order in which they run.

`drop_assertions`        runs first: a check reads values in the middle of the graph, and would keep
                         alive, or keep shared, what the later passes could remove.
`keep_written_weights`   runs before all passes that treat weights as constants.
`drop_identities`        brings a convolution next to its batch norm, and weights next to their use.
`pair_quantizers`        runs before the decompositions, which would take the pairs apart.
`masks_as_indices`       runs before the decompositions, because it looks for whole calls.
`fold_constants`         reduces a frozen batch norm to a product and a sum with weights.
`fold_batch_norm`        needs batch norms whole, and constants as weights.
`decompose_unconverted`  runs after the folds, which need whole operators and leave fewer of them.
`drop_identities`,       run again for what the decompositions add: casts to the same dtype, aranges
`fold_constants`         and index tables.
`drop_dead_code`         runs last: nothing else erases weights that were never read.
"""

if __name__ != "fxtrt.passes":
    raise ImportError("this package is fxtrt.passes: import it by that name")

from .decompose_unconverted import decompose_unconverted
from .drop_assertions import drop_assertions
from .drop_dead_code import drop_dead_code
from .drop_identities import drop_identities
from .fold_batch_norm import fold_batch_norm
from .fold_constants import fold_constants
from .keep_written_weights import keep_written_weights
from .masks_as_indices import masks_as_indices
from .pair_quantizers import pair_quantizers

__all__ = [
    "DEFAULT_PASSES",
    "decompose_unconverted",
    "drop_assertions",
    "drop_dead_code",
    "drop_identities",
    "fold_batch_norm",
    "fold_constants",
    "keep_written_weights",
    "masks_as_indices",
    "pair_quantizers",
]

DEFAULT_PASSES = (
    drop_assertions,
    keep_written_weights,
    drop_identities,
    pair_quantizers,
    masks_as_indices,
    fold_constants,
    fold_batch_norm,
    decompose_unconverted,
    drop_identities,
    fold_constants,
    drop_dead_code,
)
