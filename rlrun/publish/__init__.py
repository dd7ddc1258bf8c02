"""From a run to what others can watch, trust and use."""
