"""What is being solved and estimated: MDPs, games, reward chains, targets.

Open to estimators: nothing here is an answer.
"""
