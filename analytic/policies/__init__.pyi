from .softmax import LinearSoftmax as LinearSoftmax
from .softmax import Policy as Policy
from .softmax import TabularSoftmax as TabularSoftmax
from .softmax import softmax as softmax
