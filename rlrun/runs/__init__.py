"""The run directory and the checkpoint bundle: what a run leaves behind, every file whole or absent."""
