from .games import GameConstants as GameConstants
from .games import game_constants as game_constants
from .loops import LoopConstants as LoopConstants
from .loops import Scope as Scope
from .loops import loop_constants as loop_constants
from .returns import ReturnConstants as ReturnConstants
from .returns import return_constants as return_constants
