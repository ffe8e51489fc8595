from .ranges import component_range as component_range
from .reasons import Reason as Reason
from .reports import BiasReport as BiasReport
from .reports import Evidence as Evidence
from .reports import Verdict as Verdict
from .setting import Setting as Setting
