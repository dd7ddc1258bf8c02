"""What `rlrun tune` searches for each algorithm, unless the config has a section ``search``: one literal table.

Names are those of the SB3 class; the forms are those of :mod:`rlrun.config.search`. Left out are hyperparameters that
only some envs allow (``use_sde`` needs continuous actions) and those that trade memory or time (``buffer_size``).
"""

from __future__ import annotations

from typing import Any

Space = dict[str, dict[str, Any]]

_RATE = {"log": [1e-5, 1e-2]}
_GAMMA = {"one_minus_log": [1e-4, 0.1]}
_LAMBDA = {"one_minus_log": [1e-3, 0.2]}
_NETWORKS: Space = {
    "policy_kwargs.net_arch": {"choice": [[64], [64, 64], [256, 256]]},
    "policy_kwargs.activation_fn": {"choice": ["Tanh", "ReLU"]},
}
_ACTOR_CRITIC: Space = {
    "gamma": _GAMMA,
    "gae_lambda": _LAMBDA,
    "learning_rate": _RATE,
    "ent_coef": {"log": [1e-8, 0.1]},
    "vf_coef": {"uniform": [0.2, 0.8]},
    "max_grad_norm": {"log": [0.3, 5.0]},
    **_NETWORKS,
}
_PPO: Space = {
    "n_steps": {"power_of_two": [5, 11]},
    "batch_size": {"power_of_two": [4, 9]},
    "n_epochs": {"choice": [1, 4, 10, 20]},
    "clip_range": {"choice": [0.1, 0.2, 0.3, 0.4]},
    **_ACTOR_CRITIC,
}
_REPLAY: Space = {
    "gamma": _GAMMA,
    "learning_rate": _RATE,
    "batch_size": {"power_of_two": [5, 9]},
    "train_freq": {"choice": [1, 4, 8, 16]},
    "gradient_steps": {"choice": [-1, 1, 4]},
}
_VALUES: Space = {
    **_REPLAY,
    "target_update_interval": {"choice": [1, 100, 1_000, 5_000]},
    "exploration_fraction": {"uniform": [0.01, 0.5]},
    "exploration_final_eps": {"uniform": [0.0, 0.2]},
    "policy_kwargs.net_arch": {"choice": [[64], [64, 64], [256, 256]]},
}
_CONTINUOUS: Space = {
    **_REPLAY,
    "policy_kwargs.net_arch": {"choice": [[64, 64], [256, 256], [400, 300]]},
    "policy_kwargs.activation_fn": {"choice": ["ReLU", "Tanh"]},
}
_TAU = {"log": [1e-3, 0.08]}
_NOISE = {
    "choice": [
        None,
        {"normal": {"sigma": 0.1}},
        {"normal": {"sigma": 0.3}},
        {"ornstein_uhlenbeck": {"sigma": 0.2}},
    ]
}

SEARCH_SPACES: dict[str, Space] = {
    "a2c": {
        "n_steps": {"power_of_two": [3, 9]},
        "normalize_advantage": {"choice": [False, True]},
        "use_rms_prop": {"choice": [True, False]},
        **_ACTOR_CRITIC,
    },
    "ppo": _PPO,
    "maskable_ppo": _PPO,
    "recurrent_ppo": {
        **_PPO,
        "policy_kwargs.lstm_hidden_size": {"power_of_two": [4, 8]},
        "policy_kwargs.enable_critic_lstm": {"choice": [True, False]},
    },
    "trpo": {
        "n_steps": {"power_of_two": [5, 11]},
        "batch_size": {"power_of_two": [4, 9]},
        "gamma": _GAMMA,
        "gae_lambda": _LAMBDA,
        "learning_rate": _RATE,
        "n_critic_updates": {"choice": [5, 10, 20, 30]},
        "cg_max_steps": {"choice": [5, 10, 20, 30]},
        "target_kl": {"log": [1e-3, 0.1]},
        **_NETWORKS,
    },
    "dqn": _VALUES,
    "qrdqn": {**_VALUES, "policy_kwargs.n_quantiles": {"choice": [25, 50, 100, 200]}},
    "sac": {**_CONTINUOUS, "tau": _TAU},
    "tqc": {
        **_CONTINUOUS,
        "tau": _TAU,
        "top_quantiles_to_drop_per_net": {"int": [0, 5]},
        "policy_kwargs.n_critics": {"int": [1, 3]},
    },
    "td3": {
        **_CONTINUOUS,
        "tau": _TAU,
        "action_noise": _NOISE,
        "policy_delay": {"int": [1, 3]},
        "target_policy_noise": {"uniform": [0.0, 0.4]},
    },
    "ddpg": {**_CONTINUOUS, "tau": _TAU, "action_noise": _NOISE},
    "crossq": {**_CONTINUOUS, "policy_delay": {"int": [1, 4]}},
    "q_learning": {
        "learning_rate": {"uniform": [0.05, 1.0]},
        "gamma": _GAMMA,
        "exploration_final_eps": {"uniform": [0.0, 0.2]},
        "exploration_decay": {"log": [1e-4, 1e-2]},
    },
    "reinforce": {
        "learning_rate": {"log": [1e-4, 1e-1]},
        "gamma": _GAMMA,
        "standardize": {"choice": [True, False]},
        "baseline": {"choice": [True, False]},
        "policy_kwargs.net_arch": {"choice": [[16], [64], [64, 64]]},
    },
    "ars": {
        "n_delta": {"choice": [4, 8, 16, 32, 64]},
        "n_top": {"choice": [1, 2, 4, 8, 16, 32]},
        "learning_rate": {"log": [1e-3, 0.1]},
        "delta_std": {"log": [1e-3, 0.3]},
        "zero_policy": {"choice": [True, False]},
    },
}
