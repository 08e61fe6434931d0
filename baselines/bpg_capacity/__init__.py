"""BPG at the rates of ideal channel codes: bounds of every separation-based scheme."""

from baselines.bpg_capacity.bounds import BpgCapacity, BpgCapacityOma

__all__ = ["BpgCapacity", "BpgCapacityOma"]
