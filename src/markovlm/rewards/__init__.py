"""Rewards: what a CoT earns by the answer that is read from it. One file each."""

from markovlm.rewards.base import Answers, NoOptions, Reward, build_reward

__all__ = ["Answers", "NoOptions", "Reward", "build_reward"]
