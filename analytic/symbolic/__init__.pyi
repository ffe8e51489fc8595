from .expressions import Expression as Expression
from .meta_gradients import StagedExpression as StagedExpression
from .meta_gradients import lirpg_expression as lirpg_expression
from .meta_gradients import lola_expression as lola_expression
from .meta_gradients import maml_expression as maml_expression
from .problems import SymbolicGame as SymbolicGame
from .problems import SymbolicMDP as SymbolicMDP
