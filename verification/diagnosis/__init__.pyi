from .diagnose import Diagnosis as Diagnosis
from .diagnose import Match as Match
from .diagnose import diagnose as diagnose
from .diagnose import diagnose_all as diagnose_all
from .update_fields import FieldReport as FieldReport
from .update_fields import field_report as field_report
