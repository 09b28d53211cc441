"""`tamen plan`: what a run, a cluster or games of engines would take, by models and simulation."""
