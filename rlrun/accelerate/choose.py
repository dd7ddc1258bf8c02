"""Which classes have a faster form, and whether a model makes use of it."""

from __future__ import annotations

from typing import Any

from sb3_contrib import QRDQN, TQC
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm

from rlrun.accelerate.convolutions import extractors_of
from rlrun.accelerate.frames import FrameBuffer


class Accelerated:
    """Mixin of an SB3 algorithm: its faster form, where the model's parts allow it.

    A model is asked once, when it is set up; one that is refused trains as plain SB3. What the faster form keeps is
    left out of what SB3 saves, so a saved model is a plain SB3 model.

    :ivar fast: what the faster form works with; None: plain SB3
    :ivar acceleration: whether it is used, and how or why not
    """

    fast: Any = None
    acceleration: str = ""

    def why_plain(self) -> str:
        """Why this model trains as plain SB3; empty when it need not."""
        raise NotImplementedError

    def build_fast(self) -> Any:
        """What the faster form works with, for a model that :meth:`why_plain` has nothing against."""
        raise NotImplementedError

    def how_fast(self) -> str:
        """One clause on what the faster form does."""
        raise NotImplementedError

    def _setup_model(self) -> None:
        super()._setup_model()  # type: ignore[misc]
        reason = self.why_plain()
        self.fast = None if reason else self.build_fast()
        self.acceleration = f"off: {reason}" if reason else f"auto: {self.how_fast()}"

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "fast", "acceleration"]  # type: ignore[misc]


def accelerated(cls: type[BaseAlgorithm]) -> type[BaseAlgorithm]:
    """The faster form of an algorithm's class; the class itself where there is none."""
    return _faster_forms().get(cls, cls)


def _faster_forms() -> dict[type[BaseAlgorithm], type[BaseAlgorithm]]:
    from rlrun.accelerate import dqn, on_policy, soft, td3

    return {
        A2C: on_policy.FastA2C,
        PPO: on_policy.FastPPO,
        DQN: dqn.FastDQN,
        QRDQN: dqn.FastQRDQN,
        SAC: soft.FastSAC,
        TQC: soft.FastTQC,
        TD3: td3.FastTD3,
        DDPG: td3.FastDDPG,
    }


def described(model: BaseAlgorithm, wanted: str) -> str:
    """What is accelerated about a model, or why nothing is: one clause for people.

    :param wanted: the config's ``accelerate``
    """
    if wanted == "off":
        return "accelerate off: as the config says"
    reason = getattr(model, "acceleration", f"off: {type(model).__name__} has no faster form")
    if wanted == "cuda_graphs" and not reason.startswith(wanted):
        reason = f"{reason} (nothing to replay: cuda_graphs is for DQN, SAC and TQC of SB3 on a GPU)"
    parts = []
    if isinstance(getattr(model, "replay_buffer", None), FrameBuffer):
        parts.append("every frame is stored once")
    if extractors_of(model.policy):
        parts.append("convolutions " + ("in bfloat16, " if wanted == "bfloat16" else "") + "with channels last")
    if not parts:
        return f"accelerate {reason}"
    updates = f"updates as in plain SB3, since {reason[5:]}" if reason.startswith("off: ") else f"updates {reason}"
    return f"accelerate {wanted}: {'; '.join(parts)}; {updates}"
