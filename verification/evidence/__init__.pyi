from .ranges import component_range as component_range
from .reports import BiasReport as BiasReport
from .reports import Evidence as Evidence
from .reports import Verdict as Verdict
