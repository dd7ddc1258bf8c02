"""``rlrun tune``: an Optuna study whose best trials are tested again on seeds that the search never saw.

One process, the one that the user started, holds the study: it asks Optuna for a trial, hands training to worker
processes (:mod:`rlrun.tuning.worker`), and tells Optuna what came out. Workers know nothing of Optuna. Several such
processes, on several machines, may share a study through its storage.
"""
