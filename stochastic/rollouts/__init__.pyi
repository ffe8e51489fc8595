from .records import Record as Record
from .trajectories import Trajectories as Trajectories
from .trajectories import sample as sample
