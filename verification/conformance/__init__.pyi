from .meta_suite import check_meta_gradient as check_meta_gradient
from .report import ConformanceReport as ConformanceReport
from .suite import Claim as Claim
from .suite import assert_conforms as assert_conforms
from .suite import check_estimator as check_estimator
