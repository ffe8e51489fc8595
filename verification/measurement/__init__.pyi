from .measure import assert_unbiased as assert_unbiased
from .measure import measure_bias as measure_bias
from .meta_gradients import measure_meta_gradient as measure_meta_gradient
