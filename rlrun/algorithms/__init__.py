"""The algorithms rlrun trains, and how a config's hyperparameters become their keyword arguments."""
