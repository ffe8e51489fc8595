from .comparison import ComparisonReport as ComparisonReport
from .comparison import compare_estimators as compare_estimators
from .functionals import ControlVariate as ControlVariate
from .measure import measure_bias_sequentially as measure_bias_sequentially
from .surveys import Survey as Survey
from .surveys import survey as survey
from .verdict import SequentialReport as SequentialReport
