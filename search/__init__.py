"""Games and an evaluator make decisions. A search is a generator and never knows who evaluates."""
