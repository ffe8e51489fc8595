from .report import ConformanceReport as ConformanceReport
from .report import ConformanceVerdict as ConformanceVerdict
from .suite import Claim as Claim
from .suite import assert_conforms as assert_conforms
from .suite import check_estimator as check_estimator
from .suite import check_meta_gradient as check_meta_gradient
from .suite import conformance_tests as conformance_tests
